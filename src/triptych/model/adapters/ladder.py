"""Ladder side-tuning (Sung et al. 2022, LST): training keeps the side network's activations alone in memory."""

from __future__ import annotations

from typing import final

import torch
from torch import nn

from triptych.model.adapters.adapter import BlocksAdapter
from triptych.model.config import AdapterConfig, BlockConfig, Precision
from triptych.model.dense import Dense
from triptych.model.encoder import Block, Blocks
from triptych.tokens import Tokens


@final
class Ladder(BlocksAdapter):
    """A narrow network beside the blocks, with a rung from each: s ← block(g · W h + (1 − g) · s), g = sigmoid(a).

    h is what a block of the backbone gives, without its gradient.  The side network's last state joins the backbone's
    output through a projection, zero at the start, where the paper lets it take that output's place; its blocks start
    fresh, not from the backbone's weights.
    """

    def __init__(self, dim: int, depth: int, config: AdapterConfig, precision: Precision) -> None:
        super().__init__(dim, depth, config, precision)
        own = BlockConfig(heads=1, head_dim=config.rank, hidden=2 * config.rank)
        self.entry = Dense(dim, config.rank, precision=precision)
        self.rungs = nn.ModuleList(Dense(dim, config.rank, precision=precision) for _ in range(depth))
        self.side = nn.ModuleList(
            Block(config.rank, own, grid=(), precision=precision, dropout=0.0) for _ in range(depth)
        )
        self.gates = nn.Parameter(torch.zeros(depth))
        self.exit = Dense(config.rank, dim, precision=precision)
        nn.init.zeros_(self.exit.weight)

    def forward(self, tokens: Tokens, blocks: Blocks) -> Tokens:
        """tokens.x: (batch, tokens, dim) → (batch, tokens, dim)"""
        state = tokens.with_x(self.entry(tokens.x.detach()))
        for layer, rung, side, gate in zip(blocks.layers, self.rungs, self.side, self.gates.sigmoid(), strict=True):
            tokens = layer(tokens)
            state = side(state.with_x(gate * rung(tokens.x.detach()) + (1 - gate) * state.x))
        return tokens.with_x(blocks.norm(tokens.x).detach() + self.exit(state.x))
