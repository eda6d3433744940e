"""Product of experts (Wu & Goodman 2018, MVAE).  O(modalities · dim²) time, after pooling.

It never sees pairs of tokens, so it is off the rows of the survey's Table 1: linear in tokens and in modalities.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

import torch
from torch import Tensor

from triptych.model.auxiliary import Auxiliary
from triptych.model.config import FusionConfig, Precision
from triptych.model.fusion.fusion import Fusion
from triptych.model.fusion.vectors import Vectors
from triptych.tokens import Tokens

_DIVERGENCE = 1e-3  # usual weight of the divergence, where a class and not the input has to be told from the sample


@final
class ProductOfExpertsFusion(Fusion, Auxiliary):
    """Each modality is a Gaussian expert, the prior a unit one: mean Σ λ μ / (1 + Σ λ), precision 1 + Σ λ.

    A missing modality has no expert.  A sample of the product goes on while training, its mean afterwards; the paper's
    divergence from the prior, which keeps samples from shrinking to their means, is an auxiliary loss.  An expert's
    mean and log-precision lie side by side for every feature, so that pruning cuts it in one piece.
    """

    def __init__(self, dims: Mapping[str, int], config: FusionConfig, precision: Precision, dropout: float) -> None:
        super().__init__(dims, config, precision, dropout)
        self.experts = Vectors(dims, 2 * config.dim, precision)
        self.width = config.dim

    def forward(self, streams: Mapping[str, Tokens]) -> Tensor:
        """streams: any non-empty subset of the modalities → (batch, width)"""
        experts, exists = self.experts(streams)
        mean, log_precision = experts.unflatten(-1, (-1, 2)).unbind(dim=-1)
        mean, precision = product(mean, torch.where(exists, log_precision.clamp(-10, 10).exp(), 0.0))
        if not self.training:
            return mean
        self.auxiliary = _DIVERGENCE * divergence(mean.float(), precision.float()).mean()
        return mean + torch.randn_like(mean) * precision.rsqrt()


def product(mean: Tensor, precision: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and precision of a product of Gaussians and a unit prior, (batch, dim) each.

    mean, precision: (experts, batch, dim)
    """
    total = 1 + precision.sum(dim=0)
    return (mean * precision).sum(dim=0) / total, total


def divergence(mean: Tensor, precision: Tensor) -> Tensor:
    """Kullback–Leibler divergence of Gaussians from the unit one, Σ (mean² + 1/precision − 1 + ln precision) / 2.

    mean, precision: (batch, dim) → (batch,), zero for the prior itself
    """
    return (mean.square() + 1 / precision - 1 + precision.log()).sum(dim=1) / 2
