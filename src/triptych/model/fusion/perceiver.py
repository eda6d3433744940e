"""Latents that read the tokens of all modalities (Jaegle et al. 2021, Perceiver and Perceiver IO).

O(K · (N + M) · dim) time per reading for K latents and modalities of N and M tokens: linear in the tokens, and
O(K² · dim) per block among the latents, whatever the inputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, final

import torch
from torch import Tensor, nn

from triptych.model.config import BlockConfig, FusionConfig, Precision
from triptych.model.encoder import Block
from triptych.model.fusion.cross_attention import CrossBlock
from triptych.model.fusion.early import Joined
from triptych.model.fusion.fusion import Fusion
from triptych.tokens import Tokens


@final
class PerceiverFusion(Fusion):
    """A learnt array of latents reads all tokens at once, then works among itself; the mean of the latents goes on.

    One layer is the single reading of Perceiver IO, several are the iterative attention of Perceiver.  Over encoders
    without blocks it is the whole network: the latents read what the stems give.
    """

    mixer: ClassVar[str] = "attention"

    def __init__(self, dims: Mapping[str, int], config: FusionConfig, precision: Precision, dropout: float) -> None:
        super().__init__(dims, config, precision, dropout)
        self.join = Joined(dims, config.dim, precision)
        self.latents = nn.Parameter(torch.randn(config.latents, config.dim) * 0.02)
        self.layers = nn.ModuleList(
            _Layer(config.dim, block, config.latent_depth, precision=precision, dropout=dropout)
            for block in config.blocks
        )
        self.norm = nn.LayerNorm(config.dim)
        self.width = config.dim

    def forward(self, streams: Mapping[str, Tokens]) -> Tensor:
        """streams: any non-empty subset of the modalities → (batch, width)"""
        source = self.join(streams)
        latents = Tokens(self.latents.repeat(source.x.shape[0], 1, 1))
        for layer in self.layers:
            latents = layer(latents, source)
        out: Tensor = self.norm(latents.x)
        return out.mean(dim=1)


@final
class _Layer(nn.Module):
    """A reading, then blocks among the latents."""

    def __init__(self, dim: int, block: BlockConfig, depth: int, *, precision: Precision, dropout: float) -> None:
        super().__init__()
        self.read = CrossBlock(dim, block, precision=precision, dropout=dropout)
        self.within = nn.ModuleList(
            Block(dim, block, grid=(), precision=precision, dropout=dropout) for _ in range(depth)
        )

    def forward(self, latents: Tokens, source: Tokens) -> Tokens:
        """latents.x: (batch, latents, dim), source.x: (batch, tokens, dim) → (batch, latents, dim)"""
        latents = self.read(latents, source)
        for block in self.within:
            latents = block(latents)
        return latents
