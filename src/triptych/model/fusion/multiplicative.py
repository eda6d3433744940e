"""Multiplicative fusion (Kim et al. 2016, multimodal residual networks).  O(modalities · dim²) time, after pooling.

It never sees pairs of tokens, so it is off the rows of the survey's Table 1: linear in tokens and in modalities.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from typing import final

import torch
from torch import Tensor

from triptych.model.config import FusionConfig, Precision
from triptych.model.fusion.fusion import Fusion
from triptych.model.fusion.vectors import Vectors
from triptych.tokens import Tokens


@final
class MultiplicativeFusion(Fusion):
    """Σ v_m + Π v_m with v_m = tanh(W_m x_m + b_m), over the modalities that a row holds.

    The sum is the residual path: gradients do not vanish in a product of small numbers.
    """

    def __init__(self, dims: Mapping[str, int], config: FusionConfig, precision: Precision, dropout: float) -> None:
        super().__init__(dims, config, precision, dropout)
        self.vectors = Vectors(dims, config.dim, precision)
        self.width = config.dim

    def forward(self, streams: Mapping[str, Tokens]) -> Tensor:
        """streams: any non-empty subset of the modalities → (batch, width)"""
        vectors, exists = self.vectors(streams)
        values = vectors.tanh()
        factors = torch.where(exists, values, torch.ones_like(values))
        out: Tensor = values.sum(dim=0) + reduce(torch.mul, factors.unbind())
        return out
