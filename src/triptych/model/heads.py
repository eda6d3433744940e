"""From what fusion or an encoder gives to the network's output."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional

from triptych.model.config import Precision
from triptych.model.dense import Dense
from triptych.schema import Schema
from triptych.tokens import Tokens

_SCALE, _BIAS = 10.0, -10.0  # as Zhai et al. 2023 start: nearly every pair of a batch is a wrong one
_LARGEST_SCALE = 100.0  # as Radford et al. 2021 clip it


@final
class Head(nn.Module):
    """Two layers from a vector to class scores, or to a value in the target's own unit."""

    def __init__(self, inputs: int, hidden: int, schema: Schema, *, precision: Precision, dropout: float) -> None:
        super().__init__()
        self.up = Dense(inputs, hidden, precision=precision)
        self.out = Dense(hidden, schema.outputs, precision=_last(precision))
        self.dropout = nn.Dropout(dropout)
        self.center, self.scale = schema.center, schema.scale

    def forward(self, x: Tensor) -> Tensor:
        """x: (batch, inputs) → (batch, outputs)"""
        out: Tensor = self.out(self.dropout(functional.gelu(self.up(x))))
        return out if (self.center, self.scale) == (0.0, 1.0) else out * self.scale + self.center


@final
class EmbeddingHead(nn.Module):
    """A projection, a perceptron on top of it, and unit length: v / ‖v‖ with v = p + W₂ gelu(W₁ p), p = W x."""

    def __init__(self, inputs: int, hidden: int, width: int, *, precision: Precision, dropout: float) -> None:
        super().__init__()
        self.project = Dense(inputs, width, precision=precision)
        self.up = Dense(width, hidden, precision=precision)
        self.out = Dense(hidden, width, precision=_last(precision))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """x: (batch, inputs) → (batch, width) of length one"""
        projected = self.project(x)
        return functional.normalize(projected + self.out(self.dropout(functional.gelu(self.up(projected)))), dim=-1)


@final
class PairHead(nn.Module):
    """An embedding of each side of a retrieval pair, from its own tokens alone (Radford et al. 2021, CLIP).

    It takes the place of fusion and head: what one side shows never reaches the other's embedding, so that either can
    be indexed beforehand.  `log_scale` and `bias` belong to the loss (see `logits`) and are not exported.
    """

    def __init__(
        self,
        pair: Sequence[str],
        dims: Mapping[str, int],
        hidden: int,
        width: int,
        *,
        precision: Precision,
        dropout: float,
    ) -> None:
        super().__init__()
        self.width = width
        self.sides = nn.ModuleDict(
            {n: EmbeddingHead(dims[n], hidden, width, precision=precision, dropout=dropout) for n in pair}
        )
        self.log_scale = nn.Parameter(torch.tensor(math.log(_SCALE)))
        self.bias = nn.Parameter(torch.tensor(_BIAS))

    def forward(self, streams: Mapping[str, Tokens]) -> Tensor:
        """Both embeddings side by side, the query's first: (batch, 2 · width); zeros for a side that is absent."""
        rows = next(iter(streams.values())).x
        absent = rows.new_zeros(rows.shape[0], self.width)
        return torch.cat([self.side(n, streams[n]) if n in streams else absent for n in self.sides], dim=-1)

    def side(self, name: str, tokens: Tokens) -> Tensor:
        """Embedding of one side: (batch, width), of length one, or zero where no token is real."""
        vector: Tensor = self.sides[name](tokens.mean())
        return vector if tokens.mask is None else vector * tokens.some()

    def logits(self, similarity: Tensor) -> tuple[Tensor, Tensor]:
        """Similarities over the learnt temperature, and the learnt bias to add to them: the same shape, and ()."""
        return similarity * self.log_scale.exp().clamp(max=_LARGEST_SCALE), self.bias


def _last(precision: Precision) -> Precision:
    """A head's last inputs stay off the int8 grid: their rounding would be the answer's."""
    return "float32" if precision == "float32" else "int8_weights"
