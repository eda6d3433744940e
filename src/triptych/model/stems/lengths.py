"""Lengths of what three axes measure, which do not depend on how a sensor is worn."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

from triptych.errors import ModelError
from triptych.schema import Modality


@final
class Lengths(nn.Module):
    """asinh of the length of every three axes, in units of their mean spread, zero where one of them is missing."""

    def __init__(self, modality: Modality) -> None:
        """Raises ModelError where the channels do not come in threes."""
        super().__init__()
        if modality.channels % 3:
            raise ModelError(
                f"lengths need three axes per sensor, and {modality.name!r} has {modality.channels} channels; use"
                " the stem 'series'"
            )
        self.sensors = modality.channels // 3
        unit = torch.tensor(modality.scale).reshape(self.sensors, 3).mean(dim=1)
        self.register_buffer("per_unit", 1 / unit, persistent=False)
        self.per_unit: Tensor

    def forward(self, series: Tensor) -> Tensor:
        """(batch, frames, 3 · sensors), NaN where missing → (batch, frames, sensors)"""
        length = torch.unflatten(series, 2, (self.sensors, 3)).square().sum(dim=3).sqrt() * self.per_unit
        return length.asinh().masked_fill(length.isnan(), 0.0)
