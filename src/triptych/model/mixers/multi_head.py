"""What mixers with attention heads share: their projections, and how padding and weights enter the softmax."""

from __future__ import annotations

import math
from abc import ABC
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from triptych.model.config import BlockConfig, Precision
from triptych.model.dense import Dense
from triptych.model.mixers.mixer import Mixer
from triptych.tokens import Tokens

BARRED = -1e4  # finite, so that a row without any real token stays finite too


class MultiHead(Mixer, ABC):
    """Queries, keys and values of all heads in one product; `_joined` turns what the heads found into an answer."""

    repeats: ClassVar[Mapping[str, int]] = {"query_key_value": 3}

    def __init__(self, dim: int, block: BlockConfig, grid: tuple[int, ...], precision: Precision) -> None:
        super().__init__(dim, block, grid, precision)
        self.heads, self.head_dim = block.heads, block.head_dim
        width = block.heads * block.head_dim
        self.query_key_value = Dense(dim, 3 * width, precision=precision)
        self.out = Dense(width, dim, precision=precision)

    def keys(self, tokens: Tokens) -> Tensor:
        """Keys averaged over heads, the likeness that merging uses: (batch, tokens, head_dim)."""
        return self._split(tokens.x)[1].mean(dim=1)

    def _split(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        parts = self.query_key_value(x).unflatten(-1, (3, self.heads, self.head_dim)).permute(2, 0, 3, 1, 4)
        return parts[0], parts[1], parts[2]

    def _joined(self, mixed: Tensor) -> Tensor:
        out: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return out


def shares(query: Tensor, key: Tensor, bias: Tensor | None) -> Tensor:
    """Attention of each query to each key, softmax(q·k / √head_dim + bias): (..., queries, keys)."""
    logits = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
    return (logits if bias is None else logits + bias).softmax(dim=-1)


def key_bias(tokens: Tokens) -> Tensor | None:
    """What a token's logit gains as a key: log(weight), or `BARRED` where it is not real: (batch, tokens)."""
    if tokens.mask is None and tokens.weight is None:
        return None
    if tokens.mask is None:
        return tokens.weights().log()
    barred = torch.full_like(tokens.x[..., 0], BARRED)
    bias = torch.zeros_like(barred) if tokens.weight is None else tokens.weight.clamp(min=1e-6).log()
    return torch.where(tokens.mask, bias, barred)


def padded(tokens: Tokens, count: int) -> Tokens:
    """The same sequence with tokens that are not real after it, `count` in all."""
    given = tokens.x.shape[1]
    if isinstance(given, int) and given == count:  # a symbolic length stays open in an exported graph
        return tokens
    missing = count - given
    weight = None if tokens.weight is None else functional.pad(tokens.weight, (0, missing))
    x = functional.pad(tokens.x, (0, 0, 0, missing))
    return Tokens(x, functional.pad(tokens.real(), (0, missing)), weight)


def mean_over_real(received: Tensor, tokens: Tokens) -> Tensor:
    """Divide what each token received, summed over real queries, by their number and average over heads.

    received: (batch, heads, tokens) → (batch, tokens)
    """
    count = tokens.real().sum(dim=1, keepdim=True).clamp(min=1)
    return received.mean(dim=1) / count
