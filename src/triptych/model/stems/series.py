"""Sensor series to window tokens."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from triptych.model.config import EncoderConfig, Precision
from triptych.model.dense import Dense
from triptych.model.stems.frames import FramesStem
from triptych.schema import Modality
from triptych.tokens import Tokens


@final
class SeriesStem(FramesStem):
    """(batch, frames, channels) float32, NaN where missing → a token per run of frames.

    What was measured is itself informative, so each channel is joined by a channel that marks its missing samples.
    A token whose every sample is missing is masked, unless the stem is built without masks.
    """

    def __init__(self, modality: Modality, encoder: EncoderConfig, precision: Precision) -> None:
        super().__init__(modality, encoder, precision)
        self.project = Dense(2 * self.run * modality.channels, encoder.dim, precision=precision, bias=False)

    def forward(self, raw: Tensor) -> Tokens:
        """raw: (batch, frames, channels) float32"""
        x, missing = self.scaled(raw)
        runs = (self.tokens, self.run)
        x = torch.unflatten(torch.cat([x, missing.to(x.dtype)], dim=-1), 1, runs).flatten(2)
        mask = ~torch.unflatten(missing, 1, runs).flatten(2).all(dim=2) if self.mask else None
        return Tokens(self.project(x) + self.position.rows(self.tokens), mask)
