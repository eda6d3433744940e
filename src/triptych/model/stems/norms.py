"""Sensor series with three axes to window tokens that also see lengths, which do not depend on how a sensor is worn."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from triptych.model.config import EncoderConfig, Precision
from triptych.model.dense import Dense
from triptych.model.stems.frames import FramesStem
from triptych.model.stems.lengths import Lengths
from triptych.schema import Modality
from triptych.tokens import Tokens


@final
class NormsStem(FramesStem):
    """(batch, frames, 3 · sensors) float32, NaN where missing → a token per run of frames.

    As `SeriesStem`, with a channel more for every three axes (see `Lengths`).
    """

    def __init__(self, modality: Modality, encoder: EncoderConfig, precision: Precision) -> None:
        super().__init__(modality, encoder, precision)
        self.lengths = Lengths(modality)
        channels = 2 * modality.channels + self.lengths.sensors
        self.project = Dense(self.run * channels, encoder.dim, precision=precision, bias=False)

    def forward(self, raw: Tensor) -> Tokens:
        """raw: (batch, frames, channels) float32"""
        series = self.padded(raw)
        x, missing = self.scale(series)
        runs = (self.tokens, self.run)
        x = torch.unflatten(torch.cat([x, missing.to(x.dtype), self.lengths(series)], dim=-1), 1, runs).flatten(2)
        mask = ~torch.unflatten(missing, 1, runs).flatten(2).all(dim=2) if self.mask else None
        return Tokens(self.project(x) + self.position.rows(self.tokens), mask)
