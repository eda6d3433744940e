"""Region cross-attention (Li et al. 2024, TokenPacker).

N / s² tokens out of an image, N / s of a sequence; O(layers · N · dim²) and no pair of tokens across regions.
"""

from __future__ import annotations

from typing import ClassVar, final

import torch
from torch import nn

from triptych.model.config import ConnectorConfig, Precision
from triptych.model.connectors.connector import Connector
from triptych.model.connectors.regions import Folding
from triptych.model.dense import Dense
from triptych.model.fusion.cross_attention import CrossBlock
from triptych.tokens import Tokens


@final
class RegionCrossAttention(Connector):
    """A coarse token per region reads that region's own tokens and no others.

    Coarse tokens are the means of their regions, which is what the paper's bilinear interpolation gives for s = 2.  The
    paper reads the features of several layers at once; here they are the last one's.
    """

    mixer: ClassVar[str] = "attention"
    any_tokens: ClassVar[bool] = False

    def __init__(
        self, inputs: int, config: ConnectorConfig, grid: tuple[int, ...], precision: Precision, dropout: float
    ) -> None:
        super().__init__(inputs, config, grid, precision, dropout)
        self.fold = Folding(grid, config.fold)
        self.coarse = Dense(inputs, config.dim, precision=precision)
        self.fine = Dense(inputs, config.dim, precision=precision)
        self.layers = nn.ModuleList(
            CrossBlock(config.dim, block, precision=precision, dropout=dropout) for block in config.blocks
        )
        self.norm = nn.LayerNorm(config.dim)

    def forward(self, tokens: Tokens) -> Tokens:
        """tokens.x: (batch, tokens, inputs) → (batch, regions, dim)"""
        regions = self.fold(tokens)
        source = regions.apart(self.fine(regions.x))
        found = Tokens(self.coarse(regions.mean()).flatten(0, 1).unsqueeze(1))
        for layer in self.layers:
            found = layer(found, source)
        return regions.one_each(torch.unflatten(self.norm(found.x).squeeze(1), 0, regions.x.shape[:2]))
