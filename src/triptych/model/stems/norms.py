"""Sensor series with three axes to window tokens that also see lengths, which do not depend on how a sensor is worn."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from triptych.errors import ModelError
from triptych.model.config import EncoderConfig, Precision
from triptych.model.dense import Dense
from triptych.model.stems.frames import FramesStem
from triptych.schema import Modality
from triptych.tokens import Tokens


@final
class NormsStem(FramesStem):
    """(batch, frames, 3 · sensors) float32, NaN where missing → a token per run of frames.

    As `SeriesStem`, with a channel more for every three axes: asinh of the length of their vector, in units of the
    axes' mean spread, zero where one of them is missing.
    """

    def __init__(self, modality: Modality, encoder: EncoderConfig, precision: Precision) -> None:
        super().__init__(modality, encoder, precision)
        if modality.channels % 3:
            raise ModelError(
                f"the stem 'norms' needs three axes per sensor, and {modality.name!r} has {modality.channels} channels;"
                " use 'series'"
            )
        self.sensors = modality.channels // 3
        unit = torch.tensor(modality.scale).reshape(self.sensors, 3).mean(dim=1)
        self.register_buffer("per_unit", 1 / unit, persistent=False)
        self.per_unit: Tensor
        channels = 2 * modality.channels + self.sensors
        self.project = Dense(self.run * channels, encoder.dim, precision=precision, bias=False)

    def forward(self, raw: Tensor) -> Tokens:
        """raw: (batch, frames, channels) float32"""
        series = self.padded(raw)
        x, missing = self.scale(series)
        length = torch.unflatten(series, 2, (self.sensors, 3)).square().sum(dim=3).sqrt() * self.per_unit
        length = length.asinh().masked_fill(length.isnan(), 0.0)
        runs = (self.tokens, self.run)
        x = torch.unflatten(torch.cat([x, missing.to(x.dtype), length], dim=-1), 1, runs).flatten(2)
        mask = ~torch.unflatten(missing, 1, runs).flatten(2).all(dim=2) if self.mask else None
        return Tokens(self.project(x) + self.position.rows(self.tokens), mask)
