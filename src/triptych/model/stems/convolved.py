"""Sensor series to tokens through two convolutions: a movement has a shape, wherever in time it lies."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional

from triptych.model.config import EncoderConfig, Precision
from triptych.model.dense import Dense
from triptych.model.stems.frames import FramesStem
from triptych.model.stems.lengths import Lengths
from triptych.schema import Modality
from triptych.tokens import Tokens

_STEPS = 4  # at most, of a token


@final
class ConvolvedStem(FramesStem):
    """(batch, frames, channels) float32, NaN where missing → a token per run of frames.

    A run is cut into up to four steps; each step, with its two neighbours, is read by a convolution, and once more by a
    second; the steps of a run make its token.  Read beside the channels: where they are missing, and `Lengths` where
    they come in threes.
    """

    def __init__(self, modality: Modality, encoder: EncoderConfig, precision: Precision) -> None:
        super().__init__(modality, encoder, precision)
        self.step = next(n for n in range(1, self.run + 1) if self.run % n == 0 and self.run // n <= _STEPS)
        self.steps = self.run // self.step
        self.lengths = None if modality.channels % 3 else Lengths(modality)
        channels = 2 * modality.channels + (self.lengths.sensors if self.lengths else 0)
        hidden = encoder.stem.hidden
        self.fine = Dense(3 * self.step * channels, hidden, precision=precision)
        self.coarse = Dense(3 * hidden, hidden, precision=precision)
        self.norm = nn.LayerNorm(hidden)
        self.project = Dense(self.steps * hidden, encoder.dim, precision=precision, bias=False)

    def forward(self, raw: Tensor) -> Tokens:
        """raw: (batch, frames, channels) float32"""
        series = self.padded(raw)
        x, missing = self.scale(series)
        read = [x, missing.to(x.dtype)]
        if self.lengths:
            read.append(self.lengths(series))
        steps = torch.unflatten(torch.cat(read, dim=-1), 1, (self.tokens * self.steps, self.step)).flatten(2)
        steps = functional.gelu(self.fine(_with_neighbours(steps)))
        steps = steps + functional.gelu(self.coarse(_with_neighbours(steps)))
        tokens = torch.unflatten(self.norm(steps), 1, (self.tokens, self.steps)).flatten(2)
        mask = ~torch.unflatten(missing, 1, (self.tokens, self.run)).flatten(2).all(dim=2) if self.mask else None
        return Tokens(self.project(tokens) + self.position.rows(self.tokens), mask)


def _with_neighbours(x: Tensor) -> Tensor:
    """(batch, steps, width) → (batch, steps, 3 · width), zeros beyond the ends"""
    wide = functional.pad(x, (0, 0, 1, 1))
    return torch.cat([wide[:, :-2], x, wide[:, 2:]], dim=2)
