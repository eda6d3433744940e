"""Attention to learned mixtures of keys and values (Wang et al. 2020, Linformer).  O(tokens · rank · dim) time."""

from __future__ import annotations

from math import prod
from typing import ClassVar, final

from torch import Tensor, nn

from triptych.errors import ModelError
from triptych.model.config import BlockConfig, Precision
from triptych.model.dense import Embedding
from triptych.model.mixers.multi_head import MultiHead, mean_over_real, padded, shares
from triptych.tokens import Tokens


@final
class LowRank(MultiHead):
    """Keys and values of all positions are folded into `rank` each, by weights that depend on positions alone."""

    needs_count: ClassVar[bool] = True

    def __init__(self, dim: int, block: BlockConfig, grid: tuple[int, ...], precision: Precision) -> None:
        super().__init__(dim, block, grid, precision)
        if not grid:
            raise ModelError(
                "low-rank attention needs a known number of tokens: not after a reduction, nor in a fusion"
            )
        self.count = prod(grid)
        self.rank = min(block.rank, self.count)
        self.fold_keys = Embedding(self.rank, self.count, precision=precision)
        self.fold_values = Embedding(self.rank, self.count, precision=precision)
        for fold in (self.fold_keys, self.fold_values):
            nn.init.normal_(fold.weight, std=self.count**-0.5)  # folded keys and values keep their size

    def forward(self, tokens: Tokens) -> Tensor:
        """tokens.x: (batch, tokens, dim) → (batch, tokens, dim); a shorter sequence folds as if zeros followed"""
        given = tokens.x.shape[1]
        query, key, value = self._parts(padded(tokens, self.count))
        share = shares(query, self.fold_keys.rows(self.rank) @ key, None)
        return self._joined(share @ (self.fold_values.rows(self.rank) @ value))[:, :given]

    def received(self, tokens: Tokens) -> Tensor:
        """How much of the mixtures that the real tokens read each token makes up: (batch, tokens)."""
        given = tokens.x.shape[1]
        tokens = padded(tokens, self.count)
        query, key, _ = self._parts(tokens)
        real = tokens.real()[:, None, :, None].to(key.dtype)
        share = (shares(query, self.fold_keys.rows(self.rank) @ key, None) * real).sum(dim=2)
        part = self.fold_values.rows(self.rank).abs() * real.squeeze(-1)
        part = part / part.sum(dim=-1, keepdim=True).clamp(min=1e-6)
        return mean_over_real((share.unsqueeze(2) @ part.unsqueeze(1)).squeeze(2), tokens)[:, :given]

    def _parts(self, tokens: Tokens) -> tuple[Tensor, Tensor, Tensor]:
        query, key, value = self._split(tokens.x)
        if tokens.mask is None:
            return query, key, value
        real = tokens.mask[:, None, :, None]
        return query, key * real, value * real
