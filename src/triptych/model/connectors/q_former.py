"""Querying transformer (Li et al. 2023, BLIP-2).  K tokens out of any number N; O(layers · K · (N + K) · dim)."""

from __future__ import annotations

from typing import ClassVar, final

import torch
from torch import nn

from triptych.model.channels import CHANNELS
from triptych.model.config import BlockConfig, ConnectorConfig, Precision
from triptych.model.connectors.connector import Connector, learnt
from triptych.model.dense import Dense
from triptych.model.fusion.cross_attention import ExactCrossAttention, Reading
from triptych.model.mixers import MIXERS
from triptych.tokens import Tokens


@final
class QFormer(Connector):
    """Learnt queries: each layer mixes them, lets them read the tokens, then changes each alone.

    The paper reads in every other layer and starts from a language model's weights; here every layer reads, and all
    start fresh.
    """

    mixer: ClassVar[str] = "attention"

    def __init__(
        self, inputs: int, config: ConnectorConfig, grid: tuple[int, ...], precision: Precision, dropout: float
    ) -> None:
        super().__init__(inputs, config, grid, precision, dropout)
        self.project = Dense(inputs, config.dim, precision=precision)
        self.queries = nn.Parameter(torch.randn(config.queries, config.dim) * 0.02)
        self.layers = nn.ModuleList(
            _Layer(config.dim, block, count=config.queries, precision=precision, dropout=dropout)
            for block in config.blocks
        )
        self.norm = nn.LayerNorm(config.dim)

    def forward(self, tokens: Tokens) -> Tokens:
        """tokens.x: (batch, tokens, inputs) → (batch, queries, dim)"""
        source = tokens.with_x(self.project(tokens.x))
        found = Tokens(self.queries.repeat(tokens.x.shape[0], 1, 1))
        for layer in self.layers:
            found = layer(found, source)
        return learnt(self.norm(found.x), tokens)


@final
class _Layer(nn.Module):
    """x + mixer(norm x), x + attention(norm x, norm source), x + channel(norm x)."""

    def __init__(self, dim: int, block: BlockConfig, *, count: int, precision: Precision, dropout: float) -> None:
        super().__init__()
        self.mix_norm, self.channel_norm = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.mixer = MIXERS[block.mixer](dim, block, (count,), precision)
        self.reading = Reading(dim, block, ExactCrossAttention, precision=precision, dropout=dropout)
        self.channel = CHANNELS[block.channel](dim, block, precision)
        self.dropout = nn.Dropout(dropout)

    def forward(self, queries: Tokens, source: Tokens) -> Tokens:
        """queries.x: (batch, queries, dim), source.x: (batch, tokens, dim) → (batch, queries, dim)"""
        mixed = self.mixer(queries.with_x(self.mix_norm(queries.x)))
        queries = self.reading(queries.with_x(queries.x + self.dropout(mixed)), source)
        return queries.with_x(queries.x + self.dropout(self.channel(self.channel_norm(queries.x))))
