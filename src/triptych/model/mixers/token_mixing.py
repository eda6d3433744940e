"""Token mixing by one learned matrix (Tolstikhin et al. 2021, MLP-Mixer, its token half without the hidden layer).

O(tokens² · dim) multiplications in a single product, which is what small networks on small inputs spend least time on.
"""

from __future__ import annotations

from math import prod
from typing import ClassVar, final

from torch import Tensor
from torch.nn import functional

from triptych.errors import ModelError
from triptych.model.config import BlockConfig, Precision
from triptych.model.dense import Embedding
from triptych.model.mixers.mixer import Mixer
from triptych.tokens import Tokens


@final
class TokenMixing(Mixer):
    """Every token becomes a fixed weighted sum of all; the weights depend on positions alone."""

    needs_count: ClassVar[bool] = True

    def __init__(self, dim: int, block: BlockConfig, grid: tuple[int, ...], precision: Precision) -> None:
        super().__init__(dim, block, grid, precision)
        if not grid:
            raise ModelError("token mixing needs a known number of tokens: not after a reduction, nor in a fusion")
        self.count = prod(grid)
        self.mix = Embedding(self.count, self.count, precision=precision)

    def forward(self, tokens: Tokens) -> Tensor:
        """tokens.x: (batch, tokens, dim) → (batch, tokens, dim); a shorter sequence mixes as if zeros followed"""
        x = tokens.x if tokens.mask is None else tokens.x * tokens.mask.unsqueeze(-1)
        given = x.shape[1]
        if isinstance(given, int) and given == self.count:  # a symbolic length stays open in an exported graph
            return self.mix.rows(self.count) @ x
        x = functional.pad(x, (0, 0, 0, self.count - given))
        return (self.mix.rows(self.count) @ x)[:, :given]

    def received(self, tokens: Tokens) -> Tensor:
        """How much weight the others put on each token's position: (batch, tokens)."""
        weight = self.mix.rows(self.count).abs().mean(dim=0)[: tokens.x.shape[1]]
        return weight.expand(tokens.x.shape[0], -1)

    def keys(self, tokens: Tokens) -> Tensor:
        """The tokens themselves, for likeness: (batch, tokens, dim)."""
        return tokens.x
