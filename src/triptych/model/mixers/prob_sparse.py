"""ProbSparse attention (Zhou et al. 2021, Informer): only queries with something to choose attend.

O(tokens · log(tokens) · dim) time: `factor` · ln(tokens) queries attend to all keys, the others get the mean value.
"""

from __future__ import annotations

import math
from typing import ClassVar, final

import torch
from torch import Tensor

from triptych.errors import ModelError
from triptych.model.config import BlockConfig, Precision
from triptych.model.mixers.multi_head import BARRED, MultiHead, key_bias, mean_over_real, padded, shares
from triptych.tokens import Tokens


@final
class ProbSparse(MultiHead):
    """A query's sparsity is its largest logit minus its mean one, over as many keys as queries attend.

    Those keys lie evenly among the real ones in place of at random, so that an answer can be repeated.
    """

    needs_count: ClassVar[bool] = True

    def __init__(self, dim: int, block: BlockConfig, grid: tuple[int, ...], precision: Precision) -> None:
        super().__init__(dim, block, grid, precision)
        if not grid:
            raise ModelError("ProbSparse needs a known number of tokens: not after a reduction, nor in a fusion")
        self.count = math.prod(grid)
        self.active = max(1, min(self.count, math.ceil(block.factor * math.log(self.count))))

    def forward(self, tokens: Tokens) -> Tensor:
        """tokens.x: (batch, tokens, dim) → (batch, tokens, dim); as many attend in a shorter sequence"""
        given = tokens.x.shape[1]
        tokens = padded(tokens, self.count)
        query, key, value = self._split(tokens.x)
        index, share = self._attend(query, key, tokens)
        mean = (_even(tokens)[:, None, None, :] @ value).expand_as(value)
        mixed = mean.scatter(2, _wide(index, self.head_dim), share @ value)
        return self._joined(mixed)[:, :given]

    def received(self, tokens: Tokens) -> Tensor:
        """Mean attention that each token receives from the real ones, an even share from idle ones: (batch, tokens)."""
        given = tokens.x.shape[1]
        tokens = padded(tokens, self.count)
        query, key, _ = self._split(tokens.x)
        index, share = self._attend(query, key, tokens)
        real = tokens.real()
        asks = real.unsqueeze(1).expand(-1, self.heads, -1).gather(2, index).to(share.dtype)
        idle = real.sum(dim=1).view(-1, 1, 1) - asks.sum(dim=2, keepdim=True)
        total = (share * asks.unsqueeze(-1)).sum(dim=2) + idle * _even(tokens).unsqueeze(1)
        return mean_over_real(total, tokens)[:, :given]

    def _attend(self, query: Tensor, key: Tensor, tokens: Tokens) -> tuple[Tensor, Tensor]:
        """The chosen queries (batch, heads, active) and their attention to all keys (batch, heads, active, tokens)."""
        sample = _wide(self._sample(tokens).unsqueeze(1).expand(-1, self.heads, -1), self.head_dim)
        logits = query @ key.gather(2, sample).transpose(-1, -2)
        sparsity = logits.amax(dim=-1) - logits.mean(dim=-1)
        if tokens.mask is not None:
            sparsity = sparsity.masked_fill(~tokens.mask.unsqueeze(1), BARRED)
        index = sparsity.topk(self.active, dim=-1).indices
        bias = key_bias(tokens)
        chosen = query.gather(2, _wide(index, self.head_dim))
        return index, shares(chosen, key, None if bias is None else bias[:, None, None, :])

    def _sample(self, tokens: Tokens) -> Tensor:
        """Keys that the sparsity is measured on, evenly spread over the real ones: (batch, active) int64."""
        turn = torch.arange(self.active, device=tokens.x.device)
        if tokens.mask is None:
            return (turn * self.count // self.active).expand(tokens.x.shape[0], -1)
        place = torch.arange(self.count, device=tokens.x.device)
        real_first = torch.where(tokens.mask, place, place + self.count).argsort(dim=1)
        return real_first.gather(1, turn * tokens.mask.sum(dim=1, keepdim=True) // self.active)


def _even(tokens: Tokens) -> Tensor:
    """Each token's part of the mean over the real ones: (batch, tokens)."""
    weight = tokens.weights()
    return weight / weight.sum(dim=1, keepdim=True).clamp(min=1e-6)


def _wide(index: Tensor, size: int) -> Tensor:
    """index: (batch, heads, kept) → (batch, heads, kept, size), to gather whole rows"""
    return index.unsqueeze(-1).expand(-1, -1, -1, size)
