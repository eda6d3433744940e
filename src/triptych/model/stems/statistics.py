"""Sensor series to tokens of statistics over what was measured, for series in which most samples are missing."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from triptych.model.config import EncoderConfig, Precision
from triptych.model.dense import Dense
from triptych.model.stems.frames import FramesStem
from triptych.schema import Modality
from triptych.tokens import Tokens

COUNT = 11  # statistics of a channel
RIDGE = 0.02  # of slopes, in squared shares of a run


class StatisticsStem(FramesStem):
    """(batch, frames, channels) float32, NaN where missing → a token per run of frames.

    Of each channel and run: mean, standard deviation, least, largest, first and last value, each over the measured
    samples alone and zero (the median, once scaled) where there is none; whether any was measured, and the root of the
    share that was, since a few samples of many differ from none more than shares tell; the sum, in units of the root of
    the run's length; the slope; and the mean of the last quarter.
    `SummaryStem` is cheaper, but its averages count what is missing as zeros.
    """

    each: ClassVar[int] = 1  # numbers that a statistic is read as

    def __init__(self, modality: Modality, encoder: EncoderConfig, precision: Precision) -> None:
        super().__init__(modality, encoder, precision)
        inputs = self.each * COUNT * modality.channels
        self.project = Dense(inputs, encoder.dim, precision=precision, bias=False)

    def forward(self, raw: Tensor) -> Tokens:
        """raw: (batch, frames, channels) float32"""
        x, missing = self.scaled(raw)
        runs = (self.tokens, self.run)
        x, missing = torch.unflatten(x, 1, runs), torch.unflatten(missing, 1, runs)
        features = self.read(statistics(x, missing).flatten(-2))
        mask = ~missing.flatten(2).all(dim=2) if self.mask else None
        return Tokens(self.project(features) + self.position.rows(self.tokens), mask)

    def read(self, told: Tensor) -> Tensor:
        """What is projected.  told: (..., statistics) → (..., each · statistics)"""
        return told


def statistics(x: Tensor, missing: Tensor) -> Tensor:
    """Eleven statistics over time of the samples that are there: (..., 11, channels).

    x:       (..., time, channels), zero where missing
    missing: (..., time, channels) bool
    """
    there = (~missing).to(x.dtype)
    count = there.sum(dim=-2)
    some, most = count.clamp(max=1.0), count.clamp(min=1.0)
    mean = x.sum(dim=-2) / most
    spread = ((x - mean.unsqueeze(-2)).square() * there).sum(dim=-2).div(most).add(1e-6).sqrt()
    far = (1.0 - there) * 1e4
    least, largest = (x + far).amin(dim=-2) * some, (x - far).amax(dim=-2) * some
    moment = torch.arange(1, x.shape[-2] + 1, dtype=x.dtype, device=x.device).unsqueeze(-1)
    last = x.gather(-2, (moment * there).argmax(dim=-2, keepdim=True)).squeeze(-2)
    first = x.gather(-2, there.argmax(dim=-2, keepdim=True)).squeeze(-2)
    often = (count / x.shape[-2]).sqrt()
    total = x.sum(dim=-2) / x.shape[-2] ** 0.5
    recent = slice(x.shape[-2] - -(-x.shape[-2] // 4), None)
    late = x[..., recent, :].sum(dim=-2) / there[..., recent, :].sum(dim=-2).clamp(min=1.0)
    return torch.stack(
        [mean, spread * some, least, largest, first, last, some, often, total, _slope(x, there, mean), late], dim=-2
    )


def _slope(x: Tensor, there: Tensor, mean: Tensor) -> Tensor:
    """Least squares over the samples that are there, of a run that lasts one, pulled to zero where they lie close.

    x, there: (..., time, channels), zero where missing; mean: (..., channels)
    """
    most = there.sum(dim=-2).clamp(min=1.0)
    moment = torch.arange(x.shape[-2], dtype=x.dtype, device=x.device).unsqueeze(-1) / x.shape[-2]
    middle = (moment * there).sum(dim=-2) / most
    spread = (moment.square() * there).sum(dim=-2) / most - middle.square()
    return ((moment * x).sum(dim=-2) / most - middle * mean) / (spread + RIDGE)
