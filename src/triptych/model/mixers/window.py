"""Sliding-window attention (Beltagy et al. 2020, Longformer): a token reads those up to `kernel` // 2 places away.

On image grids the window is a square (Liu et al. 2021, Swin, but sliding in place of shifting every other block).
O(tokens · window · dim) time: tiles as large as the window's half attend to themselves and the tiles around them.
"""

from __future__ import annotations

from typing import ClassVar, final

import torch
from torch import Tensor
from torch.nn import functional

from triptych.model.config import BlockConfig, Precision
from triptych.model.mixers.multi_head import BARRED, MultiHead, key_bias, mean_over_real, shares
from triptych.tokens import Tokens

Pair = tuple[int, int]


@final
class Window(MultiHead):
    """Multi-head attention within a window of `kernel` tokens per side; heavier tokens weigh log(weight) more."""

    needs_grid: ClassVar[bool] = True

    def __init__(self, dim: int, block: BlockConfig, grid: tuple[int, ...], precision: Precision) -> None:
        super().__init__(dim, block, grid, precision)
        self.rows = grid[0] if len(grid) == 2 else 1
        widest = (self.rows - 1, grid[-1] - 1 if grid else block.kernel)
        self.radius: Pair = (min(block.kernel // 2, widest[0]), min(block.kernel // 2, widest[1]))
        self.size: Pair = (max(1, self.radius[0]), max(1, self.radius[1]))
        near = torch.kron(_near(self.size[0], self.radius[0]), _near(self.size[1], self.radius[1]))
        self.register_buffer("near", BARRED * (1 - near), persistent=False)
        self.near: Tensor

    def forward(self, tokens: Tokens) -> Tensor:
        """tokens.x: (batch, tokens, dim) → (batch, tokens, dim)"""
        query, key, value = self._split(tokens.x)
        bias = self._around(self._bias(tokens), BARRED).transpose(-1, -2) + self.near
        mixed = shares(self._own(query), self._around(key), bias) @ self._around(value)
        return self._joined(self._back(mixed, tokens.x.shape[1]))

    def received(self, tokens: Tokens) -> Tensor:
        """Mean attention that each token receives from the real ones: (batch, tokens)."""
        query, key, _ = self._split(tokens.x)
        query, bias = query * self.head_dim**-0.5, self._bias(tokens)
        logits = self._own(query) @ self._around(key).transpose(-1, -2) + self.near
        logits = logits + self._around(bias, BARRED).transpose(-1, -2)
        total = self._back(logits.logsumexp(dim=-1, keepdim=True), tokens.x.shape[1])
        total = total.masked_fill(~tokens.real()[:, None, :, None], -BARRED)
        back = self._own(key) @ self._around(query).transpose(-1, -2) + self.near + self._own(bias, BARRED)
        share = (back - self._around(total, -BARRED).transpose(-1, -2)).exp().sum(dim=-1, keepdim=True)
        return mean_over_real(self._back(share, tokens.x.shape[1]).squeeze(-1), tokens)

    def _bias(self, tokens: Tokens) -> Tensor:
        bias = key_bias(tokens)
        return (torch.zeros_like(tokens.x[..., 0]) if bias is None else bias)[:, None, :, None]

    def _own(self, x: Tensor, fill: float = 0.0) -> Tensor:
        """x: (batch, heads, tokens, any) → (batch, heads, tile rows, tile columns, tokens of a tile, any)"""
        return self._tiled(x, (0, 0), fill)

    def _around(self, x: Tensor, fill: float = 0.0) -> Tensor:
        """As `_own`, with the tokens of the tiles around every tile too, row by row."""
        return self._tiled(x, self.radius, fill)

    def _tiled(self, x: Tensor, radius: Pair, fill: float) -> Tensor:
        x = torch.unflatten(x, 2, (self.rows, -1))
        x = _tiles(_tiles(x, 3, self.size[1], radius[1], fill), 2, self.size[0], radius[0], fill)
        return x.permute(0, 1, 2, 4, 3, 5, 6).flatten(4, 5)

    def _back(self, x: Tensor, count: int) -> Tensor:
        """Undo `_own`: (batch, heads, tokens, any)."""
        x = torch.unflatten(x, 4, self.size).permute(0, 1, 2, 4, 3, 5, 6).flatten(4, 5).flatten(2, 3)
        return x[:, :, : self.rows, : count // self.rows].flatten(2, 3)


def _near(size: int, radius: int) -> Tensor:
    """One where a token of a tile reaches a token of that and the neighbouring tiles: (size, size or 3 · size)."""
    place = torch.arange(size).unsqueeze(1)
    other = torch.arange(-size, 2 * size) if radius else torch.arange(size)
    return ((other - place).abs() <= radius).to(torch.float32)


def _tiles(x: Tensor, axis: int, size: int, radius: int, fill: float) -> Tensor:
    """Split an axis into tiles of `size`, each with its two neighbours beside it if `radius` reaches them.

    x: (..., length, ...) → (..., tiles, size or 3 · size, ...), where `fill` stands beyond both ends
    """
    length = x.shape[axis]
    tiles = (length + size - 1) // size  # not −(−length // size): exported graphs round towards zero
    halo = size if radius else 0
    after = (0, 0) * (x.ndim - 1 - axis)
    x = functional.pad(x, (*after, halo, tiles * size - length + halo), value=fill)
    starts = (0, size, 2 * size) if radius else (0,)
    parts = [torch.unflatten(x.narrow(axis, start, tiles * size), axis, (tiles, size)) for start in starts]
    return torch.cat(parts, dim=axis + 1)
