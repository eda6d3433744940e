"""Perceiver resampler (Alayrac et al. 2022, Flamingo).  K tokens out of any number N; O(layers · K · (N + K) · dim)."""

from __future__ import annotations

from typing import ClassVar, final

import torch
from torch import nn

from triptych.model.config import ConnectorConfig, Precision
from triptych.model.connectors.connector import Connector, learnt
from triptych.model.dense import Dense
from triptych.model.fusion.cross_attention import CrossBlock
from triptych.model.fusion.present import concat
from triptych.tokens import Tokens


@final
class Resampler(Connector):
    """Learnt queries read the tokens, and each other as in the paper, in one attention per layer."""

    mixer: ClassVar[str] = "attention"

    def __init__(
        self, inputs: int, config: ConnectorConfig, grid: tuple[int, ...], precision: Precision, dropout: float
    ) -> None:
        super().__init__(inputs, config, grid, precision, dropout)
        self.project = Dense(inputs, config.dim, precision=precision)
        self.queries = nn.Parameter(torch.randn(config.queries, config.dim) * 0.02)
        self.layers = nn.ModuleList(
            CrossBlock(config.dim, block, precision=precision, dropout=dropout) for block in config.blocks
        )
        self.norm = nn.LayerNorm(config.dim)

    def forward(self, tokens: Tokens) -> Tokens:
        """tokens.x: (batch, tokens, inputs) → (batch, queries, dim)"""
        source = tokens.with_x(self.project(tokens.x))
        found = Tokens(self.queries.repeat(tokens.x.shape[0], 1, 1))
        for layer in self.layers:
            found = layer(found, concat([source, found]))
        return learnt(self.norm(found.x), tokens)
