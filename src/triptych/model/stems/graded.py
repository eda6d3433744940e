"""Sensor series to tokens of graded statistics: a linear layer can then bend at the values in between."""

from __future__ import annotations

from typing import ClassVar, final

import torch
from torch import Tensor

from triptych.model.config import EncoderConfig, Precision
from triptych.model.stems.statistics import StatisticsStem
from triptych.schema import Modality

KNOTS = (-2.0, -0.7, 0.0, 0.7, 2.0)  # of squashed values: the median, usual ones and odd ones


@final
class GradedStem(StatisticsStem):
    """(batch, frames, channels) float32, NaN where missing → a token per run of frames.

    As `StatisticsStem`, and of each statistic also how far it is through each of four ranges, 0 before and 1 behind it:
    the piecewise linear encoding of Gorishniy et al. 2022, "On Embeddings for Numerical Features in Tabular Deep
    Learning", with the same ranges for all, since values are scaled robustly before.
    """

    each: ClassVar[int] = len(KNOTS)
    low: Tensor
    per_width: Tensor

    def __init__(self, modality: Modality, encoder: EncoderConfig, precision: Precision) -> None:
        super().__init__(modality, encoder, precision)
        knots = torch.tensor(KNOTS).unsqueeze(1)
        self.register_buffer("low", knots[:-1], persistent=False)
        self.register_buffer("per_width", 1 / knots.diff(dim=0), persistent=False)

    def read(self, told: Tensor) -> Tensor:
        """told: (..., statistics) → (..., 5 · statistics)"""
        plain = told.unsqueeze(-2)
        return torch.cat([plain, ((plain - self.low) * self.per_width).clamp(0, 1)], dim=-2).flatten(-2)
