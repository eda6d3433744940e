"""Hashed attention (Kitaev et al. 2020, Reformer): tokens that point the same way are sorted together and attend there.

O(tokens · chunk · dim) time, and that of sorting.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar, final

import torch
from torch import Tensor
from torch.nn import functional

from triptych.model.config import BlockConfig, Precision
from triptych.model.dense import Dense
from triptych.model.mixers.mixer import Mixer
from triptych.model.mixers.multi_head import BARRED, key_bias, mean_over_real
from triptych.tokens import Tokens

_LAST_RESORT = BARRED / 10  # what a token's own logit loses: it reads itself only when nothing else is in reach
_DIRECTIONS = 8  # for twice as many buckets; a fixed number, so that hashing stays linear in the tokens


@final
class Hashed(Mixer):
    """Queries are their own keys, at unit length; a token reads its chunk of the sorted sequence and the one before.

    One round of hashing, by the largest of some fixed random projections and their opposites.  Tokens of other buckets
    that share a chunk are read too: they cost the same.
    """

    repeats: ClassVar[Mapping[str, int]] = {"query_value": 2}

    def __init__(self, dim: int, block: BlockConfig, grid: tuple[int, ...], precision: Precision) -> None:
        super().__init__(dim, block, grid, precision)
        self.heads, self.head_dim = block.heads, block.head_dim
        self.chunk = min(block.chunk, math.prod(grid)) if grid else block.chunk
        width = block.heads * block.head_dim
        self.query_value = Dense(dim, 2 * width, precision=precision)
        self.out = Dense(width, dim, precision=precision)
        generator = torch.Generator().manual_seed(0)
        directions = torch.randn(block.head_dim, _DIRECTIONS, generator=generator, device="cpu")
        self.register_buffer("directions", directions)
        self.directions: Tensor

    def forward(self, tokens: Tokens) -> Tensor:
        """tokens.x: (batch, tokens, dim) → (batch, tokens, dim)"""
        query, value = self._split(tokens.x)
        order = self._order(query, tokens)
        mixed = self._share(query, order, tokens) @ _with_before(self._chunked(_sorted(value, order)))
        mixed = _unsorted(mixed.flatten(2, 3)[:, :, : tokens.x.shape[1]], order)
        out: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return out

    def received(self, tokens: Tokens) -> Tensor:
        """Mean attention that each token receives from the real ones: (batch, tokens)."""
        query, _ = self._split(tokens.x)
        order = self._order(query, tokens)
        real = tokens.real()[:, None, :, None].to(query.dtype).expand(-1, self.heads, -1, -1)
        asked = self._share(query, order, tokens) * self._chunked(_sorted(real, order))
        before, own = asked.sum(dim=3).chunk(2, dim=3)
        total = own + functional.pad(before, (0, 0, 0, 1))[:, :, 1:]
        total = total.flatten(2, 3)[:, :, : tokens.x.shape[1]].unsqueeze(-1)
        return mean_over_real(_unsorted(total, order).squeeze(-1), tokens)

    def keys(self, tokens: Tokens) -> Tensor:
        """Keys averaged over heads, the likeness that merging uses: (batch, tokens, head_dim)."""
        return functional.normalize(self._split(tokens.x)[0], dim=-1).mean(dim=1)

    def _split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        parts = self.query_value(x).unflatten(-1, (2, self.heads, self.head_dim)).permute(2, 0, 3, 1, 4)
        return parts[0], parts[1]

    def _order(self, query: Tensor, tokens: Tokens) -> Tensor:
        """Tokens by bucket, then by place, padding last: (batch, heads, tokens) int64."""
        turned = query @ self.directions
        bucket = torch.cat([turned, -turned], dim=-1).argmax(dim=-1)
        if tokens.mask is not None:
            bucket = bucket.masked_fill(~tokens.mask.unsqueeze(1), 2 * _DIRECTIONS)
        count = query.shape[2]
        return (bucket * count + torch.arange(count, device=query.device)).argsort(dim=-1)

    def _share(self, query: Tensor, order: Tensor, tokens: Tokens) -> Tensor:
        """Attention within a chunk and to the one before: (batch, heads, chunks, chunk, 2 · chunk)."""
        query = _sorted(query, order)
        key = _with_before(self._chunked(functional.normalize(query, dim=-1)))
        bias = key_bias(tokens)
        bias = torch.zeros_like(tokens.x[..., 0]) if bias is None else bias
        bias = _sorted(bias[:, None, :, None].expand(-1, self.heads, -1, -1), order)
        bias = _with_before(self._chunked(bias, BARRED), BARRED).transpose(-1, -2)
        own = functional.pad(_LAST_RESORT * torch.eye(self.chunk, device=query.device), (self.chunk, 0))
        return (self._chunked(query) @ key.transpose(-1, -2) + bias + own).softmax(dim=-1)

    def _chunked(self, x: Tensor, fill: float = 0.0) -> Tensor:
        """x: (batch, heads, tokens, any) → (batch, heads, chunks, chunk, any)"""
        chunks = (x.shape[2] + self.chunk - 1) // self.chunk  # not −(−n // chunk): exported graphs round towards zero
        x = functional.pad(x, (0, 0, 0, chunks * self.chunk - x.shape[2]), value=fill)
        return torch.unflatten(x, 2, (chunks, self.chunk))


def _with_before(x: Tensor, fill: float = 0.0) -> Tensor:
    """x: (batch, heads, chunks, chunk, any) → (batch, heads, chunks, 2 · chunk, any), the chunk before each first"""
    before = functional.pad(x, (0, 0, 0, 0, 1, 0), value=fill)[:, :, : x.shape[2]]
    return torch.cat([before, x], dim=3)


def _sorted(x: Tensor, order: Tensor) -> Tensor:
    """x: (batch, heads, tokens, any), order: (batch, heads, tokens)"""
    return x.gather(2, order.unsqueeze(-1).expand(-1, -1, -1, x.shape[-1]))


def _unsorted(x: Tensor, order: Tensor) -> Tensor:
    """Undo `_sorted`."""
    return torch.zeros_like(x).scatter(2, order.unsqueeze(-1).expand(-1, -1, -1, x.shape[-1]), x)
