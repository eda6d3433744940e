"""What the stems of sensor series share: runs of frames, scaled, with what is missing known."""

from __future__ import annotations

import math
from abc import ABC
from typing import ClassVar

from torch import Tensor
from torch.nn import functional

from triptych.model.config import EncoderConfig, Precision
from triptych.model.dense import Embedding
from triptych.model.stems.robust import RobustScale
from triptych.model.stems.stem import Stem
from triptych.schema import Kind, Modality


class FramesStem(Stem, ABC):
    """A token per run of `frames_per_token` frames; the last run is filled up with missing ones.

    Every token has a position, which is all the bias that a projection needs.
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
        self.position = Embedding(self.tokens, encoder.dim, precision=precision)

    def scaled(self, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Scaled values, and bool where missing: (batch, tokens · run, channels) each.

        raw: (batch, frames, channels) float32, NaN where missing
        """
        x, missing = self.scale(self.padded(raw))
        return x, missing

    def padded(self, raw: Tensor) -> Tensor:
        """As many frames as the tokens take, those beyond the series' end missing: (batch, tokens · run, channels)."""
        series = raw[:, : self.frames]
        extra = self.frames - raw.shape[1]
        return functional.pad(series, (0, 0, 0, extra), value=math.nan) if extra > 0 else series
