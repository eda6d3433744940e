"""Concat pooling (Howard and Ruder 2018, "Universal Language Model Fine-tuning"): one token out, O(N · inputs).

What a sequence is like on average, and the most that any of its tokens shows: short events drown in a mean.
"""

from __future__ import annotations

from typing import final

import torch

from triptych.model.config import ConnectorConfig, Precision
from triptych.model.connectors.connector import Connector, learnt
from triptych.model.dense import Dense
from triptych.tokens import Tokens


@final
class ConcatPool(Connector):
    """W [mean; max] + b over the real tokens, weighted as `Tokens.mean` is; zeros go in where none is real.

    A feature's mean and its largest value lie side by side, so that pruning cuts a feature in one piece.
    """

    def __init__(
        self, inputs: int, config: ConnectorConfig, grid: tuple[int, ...], precision: Precision, dropout: float
    ) -> None:
        super().__init__(inputs, config, grid, precision, dropout)
        self.project = Dense(2 * inputs, config.dim, precision=precision)

    def forward(self, tokens: Tokens) -> Tokens:
        """tokens.x: (batch, tokens, inputs) → (batch, 1, dim)"""
        pooled = torch.stack([tokens.mean(), tokens.most()], dim=2).flatten(1)
        return learnt(self.project(pooled).unsqueeze(1), tokens)
