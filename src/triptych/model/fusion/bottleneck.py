"""Bottleneck fusion (Nagrani et al. 2021, MBT).  O(Σ (tokens + bottlenecks)² · dim): linear in modalities."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, final

import torch
from torch import Tensor, nn

from triptych.model.config import FusionConfig, Precision
from triptych.model.dense import Dense
from triptych.model.encoder import Block
from triptych.model.fusion.fusion import Fusion
from triptych.model.fusion.present import concat, shares
from triptych.tokens import Tokens


@final
class BottleneckFusion(Fusion):
    """Modalities talk only through a few shared tokens, averaged over the modalities after every layer."""

    mixer: ClassVar[str] = "attention"

    def __init__(self, dims: Mapping[str, int], config: FusionConfig, precision: Precision, dropout: float) -> None:
        super().__init__(dims, config, precision, dropout)
        self.project = nn.ModuleDict({name: Dense(dim, config.dim, precision=precision) for name, dim in dims.items()})
        self.shared = nn.Parameter(torch.randn(config.bottlenecks, config.dim) * 0.02)
        self.layers = nn.ModuleList(
            nn.ModuleDict(
                {name: Block(config.dim, block, grid=(), precision=precision, dropout=dropout) for name in dims}
            )
            for block in config.blocks
        )
        self.norm = nn.LayerNorm(config.dim)
        self.width = config.dim

    def forward(self, streams: Mapping[str, Tokens]) -> Tensor:
        """streams: any non-empty subset of the modalities → (batch, width)"""
        present = [name for name in self.project if name in streams]
        parts = {name: streams[name].with_x(self.project[name](streams[name].x)) for name in present}
        share = shares(list(parts.values())).unsqueeze(-1).unsqueeze(-1)
        shared = self.shared.expand(share.shape[1], -1, -1)
        for layer in self.layers:
            joined = {name: layer.get_submodule(name)(concat([Tokens(shared), parts[name]])) for name in present}
            count = shared.shape[1]
            shared = (torch.stack([joined[name].x[:, :count] for name in present]) * share).sum(dim=0)
            parts = {name: _rest(joined[name], count) for name in present}
        out: Tensor = self.norm(shared)
        return out.mean(dim=1)


def _rest(tokens: Tokens, count: int) -> Tokens:
    return Tokens(
        tokens.x[:, count:],
        None if tokens.mask is None else tokens.mask[:, count:],
        None if tokens.weight is None else tokens.weight[:, count:],
    )
