"""Late fusion: concatenate one vector per modality.  O(modalities · dim), Table 1 of the survey."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import accumulate
from typing import final

import torch
from torch import Tensor, nn

from triptych.model.config import FusionConfig, Precision
from triptych.model.fusion.fusion import Fusion
from triptych.tokens import Tokens


@final
class LateFusion(Fusion):
    """Mean of each modality's tokens, side by side; a learned vector stands in for a modality that is absent."""

    def __init__(self, dims: Mapping[str, int], config: FusionConfig, precision: Precision, dropout: float) -> None:
        super().__init__(dims, config, precision, dropout)
        self.absent = nn.ParameterDict({name: nn.Parameter(torch.zeros(dim)) for name, dim in dims.items()})
        self.width = sum(dims.values())
        widths = [dims[name] for name in self.absent]
        self.starts = dict(zip(self.absent, accumulate([0, *widths[:-1]]), strict=True))

    def forward(self, streams: Mapping[str, Tokens]) -> Tensor:
        """streams: any non-empty subset of the modalities → (batch, width)"""
        rows = next(iter(streams.values())).x.shape[0]
        return torch.cat([self._vector(name, streams.get(name), rows) for name in self.absent], dim=1)

    def _vector(self, name: str, tokens: Tokens | None, rows: int) -> Tensor:
        absent: Tensor = self.absent[name]
        if tokens is None:
            return absent.expand(rows, -1)
        if tokens.mask is None:
            return tokens.mean()
        return torch.where(tokens.some(), tokens.mean(), absent)
