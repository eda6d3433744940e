"""Pooling (Yu et al. 2022, PoolFormer): a token moves towards the mean of its neighbours.  O(tokens · kernel · dim)."""

from __future__ import annotations

from typing import ClassVar, final

import torch
from torch import Tensor
from torch.nn import functional

from triptych.model.config import BlockConfig, Precision
from triptych.model.mixers.mixer import WithoutAttention
from triptych.tokens import Tokens


@final
class Pooling(WithoutAttention):
    """Weighted mean of the real tokens at most `kernel` // 2 places away, minus the token; nothing is learned.

    Neighbours in rows and columns where the grid has both, along the sequence otherwise.
    """

    needs_grid: ClassVar[bool] = True

    def __init__(self, dim: int, block: BlockConfig, grid: tuple[int, ...], precision: Precision) -> None:
        super().__init__(dim, block, grid, precision)
        self.rows = grid[0] if len(grid) == 2 else 1
        self.kernel = (block.kernel if self.rows > 1 else 1, block.kernel)

    def forward(self, tokens: Tokens) -> Tensor:
        """tokens.x: (batch, tokens, dim) → (batch, tokens, dim)"""
        if tokens.mask is None and tokens.weight is None:
            return self._mean(tokens.x) - tokens.x
        weight = tokens.weights().unsqueeze(-1)
        return self._mean(tokens.x * weight) / self._mean(weight).clamp(min=1e-6) - tokens.x

    def _mean(self, x: Tensor) -> Tensor:
        """Mean over the neighbours that exist: (batch, tokens, any)."""
        places = torch.unflatten(x.transpose(1, 2), 2, (self.rows, -1))
        padding = (self.kernel[0] // 2, self.kernel[1] // 2)
        mean = functional.avg_pool2d(places, self.kernel, stride=1, padding=padding, count_include_pad=False)
        return mean.flatten(2).transpose(1, 2)
