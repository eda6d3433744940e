"""Early fusion: one trunk over the tokens of all modalities.  O((Σ tokens)² · dim), Table 1 of the survey."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, final

import torch
from torch import Tensor, nn

from triptych.model.config import FusionConfig, Precision
from triptych.model.dense import Dense
from triptych.model.encoder import Blocks
from triptych.model.fusion.fusion import Fusion
from triptych.model.fusion.present import concat
from triptych.tokens import Tokens


class Joined(nn.Module):
    """Project every modality to one width, mark whose tokens they are, and concatenate them."""

    def __init__(self, dims: Mapping[str, int], width: int, precision: Precision) -> None:
        super().__init__()
        self.project = nn.ModuleDict({name: Dense(dim, width, precision=precision) for name, dim in dims.items()})
        self.kind = nn.ParameterDict({name: nn.Parameter(torch.randn(width) * 0.02) for name in dims})

    def forward(self, streams: Mapping[str, Tokens]) -> Tokens:
        """streams: any non-empty subset → tokens.x: (batch, Σ tokens, width)"""
        present = [name for name in self.project if name in streams]
        return concat([streams[n].with_x(self.project[n](streams[n].x) + self.kind[n]) for n in present])


@final
class EarlyFusion(Fusion):
    """A joint trunk of blocks (Kim et al. 2021, ViLT) and the mean of its tokens."""

    mixer: ClassVar[str] = "attention"

    def __init__(self, dims: Mapping[str, int], config: FusionConfig, precision: Precision, dropout: float) -> None:
        super().__init__(dims, config, precision, dropout)
        self.join = Joined(dims, config.dim, precision)
        self.trunk = Blocks(config.dim, config.blocks, grid=(), precision=precision, dropout=dropout)
        self.width = config.dim

    def forward(self, streams: Mapping[str, Tokens]) -> Tensor:
        """streams: any non-empty subset of the modalities → (batch, width)"""
        tokens: Tokens = self.trunk(self.join(streams))
        return tokens.mean()
