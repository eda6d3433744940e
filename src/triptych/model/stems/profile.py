"""A clip to one token of its spectrum over time: how it sounds on the whole, whatever is said and however loud."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from triptych.model.config import EncoderConfig, Precision
from triptych.model.dense import Dense
from triptych.model.stems.log_mel import LogMelStem
from triptych.schema import Modality
from triptych.tokens import Tokens

BELOW, SOFTNESS = 7.0, 0.7  # frames count while they are less than this far below the loudest one, in nats of power
LEAST = -12.0  # nats below a clip's level: quieter bands differ in noise alone
RHYTHM = 6


@final
class ProfileStem(LogMelStem):
    """(batch, samples) float32, NaN beyond a clip's end → one token.

    Of each band, over the loud frames: mean, standard deviation, and mean change within two hops, after the clip's own
    level is taken off; then six numbers of its loudness, see `profile`.  It tells manners of speaking from few clips.
    """

    tokens = 1
    grid = (1,)

    def __init__(self, modality: Modality, encoder: EncoderConfig, precision: Precision) -> None:
        super().__init__(modality, encoder, precision)
        self.seconds = self.hop / self.rate
        self.project = Dense(3 * self.mels + RHYTHM, encoder.dim, precision=precision)

    def forward(self, raw: Tensor) -> Tokens:
        """raw: (batch, samples) float32"""
        mel, real = self.spectrum(raw)
        return Tokens(self.project(profile(mel, real, self.seconds)).unsqueeze(1), None)


def profile(mel: Tensor, real: Tensor, seconds: float) -> Tensor:
    """Statistics of a clip, each about zero mean and unit spread for speech: (batch, 3 · mels + 6).

    mel, real: as `LogMelStem.log_mel` gives them
    seconds:   from one frame to the next
    The last six: seconds of loud frames, spread and mean change of their loudness, their level, how far the loudest one
    lies above it, and seconds of the clip.
    """
    nats, there = 4.0 * mel - 4.0, real.to(mel.dtype)
    loudness = nats.exp().mean(dim=2).log()
    top = loudness.masked_fill(~real, -1e4).amax(dim=1, keepdim=True)
    weight = torch.sigmoid((loudness - top + BELOW) / SOFTNESS) * there
    level = _mean(loudness, weight).unsqueeze(1)
    x = (nats - level.unsqueeze(2)).clamp(min=LEAST)
    mean = _mean(x, weight)
    spread = _mean((x - mean.unsqueeze(1)).square(), weight).add(1e-4).sqrt()
    change = _mean((x[:, 2:] - x[:, :-2]).abs(), torch.minimum(weight[:, 2:], weight[:, :-2]))
    swing = (loudness - level).clamp(min=LEAST)
    step = _mean((swing[:, 1:] - swing[:, :-1]).abs(), torch.minimum(weight[:, 1:], weight[:, :-1]))
    rhythm = [
        seconds * weight.sum(dim=1) - 1.5,
        _mean(swing.square(), weight).add(1e-4).sqrt() - 2.0,
        4.0 * (step - 0.5),
        (level + 6.0).squeeze(1) / 2.0,
        (top - level).squeeze(1) - 2.0,
        seconds * there.sum(dim=1) - 3.5,
    ]
    return torch.cat([mean / 2.0, 2.0 * (spread - 2.2), 3.0 * (change - 1.0), torch.stack(rhythm, dim=1)], dim=1)


def _mean(x: Tensor, weight: Tensor) -> Tensor:
    """Over time: x: (batch, time, ...), weight: (batch, time) → (batch, ...)"""
    total = weight.sum(dim=1).clamp(min=1e-6)
    return (x * weight.reshape(*weight.shape, *[1] * (x.dim() - 2))).sum(dim=1) / total.reshape(
        -1, *[1] * (x.dim() - 2)
    )
