"""The two-layer perceptron of a transformer block: what each token does alone."""

from __future__ import annotations

from typing import final

from torch import Tensor
from torch.nn import functional

from triptych.model.channels.channel import Channel
from triptych.model.config import BlockConfig, Precision
from triptych.model.dense import Dense


@final
class Mlp(Channel):
    """dim → hidden → dim with a Gaussian error linear unit."""

    def __init__(self, dim: int, block: BlockConfig, precision: Precision) -> None:
        super().__init__(dim, block, precision)
        self.up = Dense(dim, block.hidden, precision=precision)
        self.down = Dense(block.hidden, dim, precision=precision)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:  # noqa: ARG002
        """x: (batch, tokens, dim) → (batch, tokens, dim)"""
        out: Tensor = self.down(functional.gelu(self.up(x)))
        return out
