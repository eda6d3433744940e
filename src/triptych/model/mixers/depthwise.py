"""Depthwise convolution (Howard et al. 2017, MobileNet): a channel mixes its neighbours.  O(tokens · kernel · dim)."""

from __future__ import annotations

from typing import ClassVar, final

import torch
from torch import Tensor, nn

from triptych.model.config import BlockConfig, Precision
from triptych.model.mixers.mixer import WithoutAttention
from triptych.tokens import Tokens


@final
class Depthwise(WithoutAttention):
    """Over the token grid where there is one (image rows and columns), along the sequence otherwise."""

    needs_grid: ClassVar[bool] = True

    def __init__(self, dim: int, block: BlockConfig, grid: tuple[int, ...], precision: Precision) -> None:
        super().__init__(dim, block, grid, precision)
        self.rows = grid[0] if len(grid) == 2 else 1
        kernel = (block.kernel if self.rows > 1 else 1, block.kernel)  # a one-row image convolves faster than a series
        self.conv = nn.Conv2d(dim, dim, kernel, padding=(kernel[0] // 2, kernel[1] // 2), groups=dim)

    def forward(self, tokens: Tokens) -> Tensor:
        """tokens.x: (batch, tokens, dim) → (batch, tokens, dim)"""
        x = tokens.x if tokens.mask is None else tokens.x * tokens.mask.unsqueeze(-1)
        mixed: Tensor = self.conv(torch.unflatten(x.transpose(1, 2), 2, (self.rows, -1)))
        return mixed.flatten(2).transpose(1, 2)
