"""Sensor series to tokens of statistics: for slow signals these keep nearly all that matters, in far fewer weights."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from triptych.model.config import EncoderConfig, Precision
from triptych.model.dense import Dense, Embedding
from triptych.model.stems.frames import FramesStem
from triptych.schema import Modality
from triptych.tokens import Tokens


@final
class SummaryStem(FramesStem):
    """(batch, frames, channels) float32, NaN where missing → a token per run of frames.

    Of each channel and run: its largest and smallest value, and learnt averages over time, shared by all channels, of
    its values and of what is missing.  A factorised form of the projection in `SeriesStem`, with extremes beside it.
    """

    def __init__(self, modality: Modality, encoder: EncoderConfig, precision: Precision) -> None:
        super().__init__(modality, encoder, precision)
        self.count = encoder.stem.averages
        self.averages = Embedding(self.count, self.run, precision=precision)
        with torch.no_grad():
            self.averages.weight.copy_(memories(self.count, self.run))
        self.project = Dense((2 * self.count + 2) * modality.channels, encoder.dim, precision=precision, bias=False)

    def forward(self, raw: Tensor) -> Tokens:
        """raw: (batch, frames, channels) float32"""
        x, missing = self.scaled(raw)
        x, gone = self._runs(x), self._runs(missing.to(x.dtype))
        sums = (self.averages.rows(self.count) @ torch.cat([x, gone], dim=-1)).flatten(-2)
        features = torch.cat([sums, x.amax(dim=-2), x.amin(dim=-2)], dim=-1)
        x = self.project(features) + self.position.rows(self.tokens)
        mask = self._runs(missing).flatten(-2).all(dim=-1).logical_not().reshape(-1, self.tokens) if self.mask else None
        return Tokens(x.reshape(-1, self.tokens, x.shape[-1]), mask)

    def _runs(self, x: Tensor) -> Tensor:
        """x: (batch, frames, channels) → (batch, tokens, run, channels), without the axis of a single token"""
        return x if self.tokens == 1 else torch.unflatten(x, 1, (self.tokens, self.run))


def memories(count: int, run: int) -> Tensor:
    """Weights over time that sum to one: even, then ever more of the latest frames: (count, run)."""
    age = torch.arange(run - 1, -1, -1) / max(run - 1, 1)
    return torch.softmax(-age * torch.tensor([0.0, *(2.0 * 2**i for i in range(count - 1))]).unsqueeze(1), dim=1)
