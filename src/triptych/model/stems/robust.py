"""Scaling that survives wrong entries and heavy tails."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

from triptych.errors import ModelError
from triptych.schema import Modality


@final
class RobustScale(nn.Module):
    """asinh((x − median) / spread), zero where missing: linear near the median, logarithmic far away."""

    def __init__(self, modality: Modality) -> None:
        super().__init__()
        if not modality.center or len(modality.center) != len(modality.scale):
            raise ModelError(f"modality {modality.name!r} has no measured centre and scale; load its data first")
        self.register_buffer("center", torch.tensor(modality.center), persistent=False)
        self.register_buffer("inverse", 1 / torch.tensor(modality.scale), persistent=False)
        self.center: Tensor
        self.inverse: Tensor

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x: (..., channels), NaN where missing → scaled values, and bool where missing, of the same shape"""
        missing = x.isnan()
        return ((x - self.center) * self.inverse).asinh().masked_fill(missing, 0.0), missing
