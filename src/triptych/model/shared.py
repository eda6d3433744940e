"""Blocks that all modalities share (Bao et al. 2022, VLMo: shared attention, perceptrons per modality).

Each modality's tokens go through them alone, with the same weights, as when VLMo encodes images and texts apart; a
trunk over all tokens together (Chen et al. 2020, UNITER; Kim et al. 2021, ViLT) is early fusion, which may follow.  So
encoders stay stages of their own, any subset of the modalities will do, and the weights are stored and pruned once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

import torch
from torch import nn

from triptych.model.config import Precision, SharedConfig
from triptych.model.dense import Dense
from triptych.model.encoder import Block
from triptych.tokens import Tokens


@final
class Shared(nn.Module):
    """Project one modality's tokens to the common width, mark whose they are, then blocks and a last norm.

    O(blocks · (tokens² · dim + tokens · dim²)) time for each modality, and parameters that do not grow with the number
    of modalities but for the projections and, where a block has them, the channel blocks per modality.
    """

    def __init__(self, dims: Mapping[str, int], config: SharedConfig, precision: Precision, dropout: float) -> None:
        super().__init__()
        self.project = nn.ModuleDict({name: Dense(dim, config.dim, precision=precision) for name, dim in dims.items()})
        self.kind = nn.ParameterDict({name: nn.Parameter(torch.randn(config.dim) * 0.02) for name in dims})
        self.layers = nn.ModuleList(
            Block(config.dim, block, grid=(), precision=precision, dropout=dropout, modalities=tuple(dims))
            for block in config.blocks
        )
        self.norm = nn.LayerNorm(config.dim)

    def forward(self, tokens: Tokens, modality: str) -> Tokens:
        """tokens.x: (batch, tokens, the modality's own dim) → (batch, tokens, dim)"""
        tokens = tokens.with_x(self.project[modality](tokens.x) + self.kind[modality])
        for layer in self.layers:
            tokens = layer(tokens, modality)
        return tokens.with_x(self.norm(tokens.x))
