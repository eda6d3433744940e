"""Sensor series to window tokens."""

from __future__ import annotations

import math
from typing import ClassVar, final

import torch
from torch import Tensor
from torch.nn import functional

from triptych.model.config import EncoderConfig, Precision
from triptych.model.dense import Dense, Embedding
from triptych.model.stems.robust import RobustScale
from triptych.model.stems.stem import Stem
from triptych.schema import Kind, Modality
from triptych.tokens import Tokens


@final
class SeriesStem(Stem):
    """(batch, frames, channels) float32, NaN where missing → a token per run of frames.

    What was measured is itself informative, so each channel is joined by a channel that marks its missing samples.
    A token whose every sample is missing is masked, unless the stem is built without masks.
    """

    kind: ClassVar[Kind] = "series"

    def __init__(self, modality: Modality, encoder: EncoderConfig, precision: Precision) -> None:
        super().__init__(modality, encoder, precision)
        self.run = encoder.stem.frames_per_token
        self.tokens = -(-modality.frames // self.run)
        self.grid = (self.tokens,)
        self.frames = self.tokens * self.run
        self.mask = encoder.stem.mask
        self.scale = RobustScale(modality, encoder.stem.squash)
        self.project = Dense(2 * self.run * modality.channels, encoder.dim, precision=precision)
        self.position = Embedding(self.tokens, encoder.dim, precision=precision)

    def forward(self, raw: Tensor) -> Tokens:
        """raw: (batch, frames, channels) float32"""
        series = raw[:, : self.frames]
        if (extra := self.frames - raw.shape[1]) > 0:
            series = functional.pad(series, (0, 0, 0, extra), value=math.nan)
        x, missing = self.scale(series)
        runs = (self.tokens, self.run)
        x = torch.unflatten(torch.cat([x, missing.to(x.dtype)], dim=-1), 1, runs).flatten(2)
        mask = ~torch.unflatten(missing, 1, runs).flatten(2).all(dim=2) if self.mask else None
        return Tokens(self.project(x) + self.position.rows(self.tokens), mask)
