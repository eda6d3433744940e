"""Low-rank tensor fusion (Liu et al. 2018, LMF).  O(modalities · dim² · tensor_rank) time and weights, after pooling.

It never sees pairs of tokens, so it is off the rows of the survey's Table 1: linear in tokens and in modalities.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from typing import final

import torch
from torch import Tensor, nn

from triptych.model.config import FusionConfig, Precision
from triptych.model.fusion.fusion import Fusion
from triptych.model.fusion.vectors import Vectors
from triptych.tokens import Tokens


@final
class LowRankFusion(Fusion):
    """Σ_r Π_m (W_mr x_m + b_mr): tensor fusion whose weights are a sum of `tensor_rank` outer products.

    b are the weights of the appended ones, and what is left of a missing modality.  They begin as ones, which makes the
    product begin near a sum, and a norm follows: a product of many small or large factors would not train.  A feature's
    factors lie side by side, so that pruning cuts it in one piece.
    """

    def __init__(self, dims: Mapping[str, int], config: FusionConfig, precision: Precision, dropout: float) -> None:
        super().__init__(dims, config, precision, dropout)
        self.vectors = Vectors(dims, config.dim * config.tensor_rank, precision, bias=False)
        self.one = nn.Parameter(torch.ones(len(dims), config.dim, config.tensor_rank))
        self.norm = nn.LayerNorm(config.dim)
        self.width = config.dim

    def forward(self, streams: Mapping[str, Tokens]) -> Tensor:
        """streams: any non-empty subset of the modalities → (batch, width)"""
        vectors, _ = self.vectors(streams)
        factors = vectors.unflatten(-1, self.one.shape[1:]) + self.one.unsqueeze(1)
        out: Tensor = self.norm(reduce(torch.mul, factors.unbind()).sum(dim=-1))
        return out
