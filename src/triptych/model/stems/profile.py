"""A clip to one token of its spectrum over time: how it sounds on the whole, whatever is said and however loud."""

from __future__ import annotations

import math
from typing import final

import torch
from torch import Tensor

from triptych.model.config import EncoderConfig, Precision
from triptych.model.dense import Dense
from triptych.model.standardise import Standardise
from triptych.model.stems.log_mel import LogMelStem
from triptych.schema import Modality
from triptych.tokens import Tokens

BELOW, SOFTNESS = 7.0, 0.7  # frames count while they are less than this far below the loudest one, in nats of power
LEAST = -12.0  # nats below a clip's level: quieter bands differ in noise alone
LOWEST, HIGHEST, PITCHES = 80.0, 500.0, 40  # hertz, and how many pitches are weighed, evenly on a log scale
SHARPNESS = 30.0  # how much more a pitch counts that repeats better
VOICED, CLEARNESS = 0.3, 20.0  # how well a frame must repeat to count as voiced, and how sharp that is
NUMBERS = 9  # beside those of the bands
TINY, FAR = 1e-3, 4.0  # least variance; standard deviations beyond which all is alike


@final
class ProfileStem(LogMelStem):
    """(batch, samples) float32, NaN beyond a clip's end → one token.

    Of each band, over the loud frames: mean, standard deviation, and mean change within two hops, after the clip's own
    level is taken off; then six numbers of its loudness and three of its pitch, see `loudness` and `pitch`.  It tells
    manners of speaking from few clips.  Pitches are found with windows of two periods of them or more, such as 40 ms.
    """

    tokens = 1
    grid = (1,)

    def __init__(self, modality: Modality, encoder: EncoderConfig, precision: Precision) -> None:
        super().__init__(modality, encoder, precision)
        self.seconds = self.hop / self.rate
        numbers = 3 * self.mels + NUMBERS
        self.project = Dense(numbers, encoder.dim, precision=precision)
        self.standardise = Standardise(numbers, least=TINY, far=FAR)
        self.register_buffer("echoes", echoes(self.window, self.rate), persistent=False)
        self.echoes: Tensor

    def forward(self, raw: Tensor) -> Tokens:
        """raw: (batch, samples) float32"""
        x = self.standardise(self.profile(raw))
        return Tokens(self.project(x).unsqueeze(1), None)

    def profile(self, raw: Tensor) -> Tensor:
        """Each number about zero mean and unit spread for speech: (batch, 3 · mels + 9).

        raw: (batch, samples) float32
        """
        power = self.power(raw)
        mel, real = self.log_mel(power)
        nats, weight = 4.0 * mel - 4.0, loud(mel, real)
        level = _mean(_nats(mel), weight)
        x = (nats - level.reshape(-1, 1, 1)).clamp(min=LEAST)
        mean = _mean(x, weight)
        spread = _mean((x - mean.unsqueeze(1)).square(), weight).add(1e-4).sqrt()
        change = _mean((x[:, 2:] - x[:, :-2]).abs(), torch.minimum(weight[:, 2:], weight[:, :-2]))
        table = echoes(self.window, self.rate) if torch.compiler.is_exporting() else self.echoes
        bands = [mean / 2.0, 2.0 * (spread - 2.2), 3.0 * (change - 1.0)]
        return torch.cat([*bands, loudness(mel, real, self.seconds), pitch(power, weight, table)], dim=1)


def loud(mel: Tensor, real: Tensor) -> Tensor:
    """How much each frame counts, from 0 to 1: (batch, frames).  mel, real: as `LogMelStem.log_mel` gives them"""
    nats = _nats(mel)
    top = nats.masked_fill(~real, -1e4).amax(dim=1, keepdim=True)
    return torch.sigmoid((nats - top + BELOW) / SOFTNESS) * real.to(mel.dtype)


def loudness(mel: Tensor, real: Tensor, seconds: float) -> Tensor:
    """Seconds of loud frames, spread and mean change of their loudness, their level, how far the loudest one lies above
    it, and seconds of the clip: (batch, 6).

    mel, real: as `LogMelStem.log_mel` gives them;  seconds: from one frame to the next
    """
    nats, weight = _nats(mel), loud(mel, real)
    level = _mean(nats, weight)
    swing = (nats - level.unsqueeze(1)).clamp(min=LEAST)
    step = _mean((swing[:, 1:] - swing[:, :-1]).abs(), torch.minimum(weight[:, 1:], weight[:, :-1]))
    numbers = [
        seconds * weight.sum(dim=1) - 1.5,
        _mean(swing.square(), weight).add(1e-4).sqrt() - 2.0,
        4.0 * (step - 0.5),
        (level + 6.0) / 2.0,
        nats.masked_fill(~real, -1e4).amax(dim=1).clamp(min=LEAST * 2) - level - 2.0,
        seconds * real.to(mel.dtype).sum(dim=1) - 3.5,
    ]
    return torch.stack(numbers, dim=1)


def pitch(power: Tensor, weight: Tensor, table: Tensor) -> Tensor:
    """Mean pitch of the voiced frames, its spread, and how well frames repeat: (batch, 3).

    The autocorrelation of a frame is the transform of its power; the cube root of the power, in its place, keeps a
    loud formant from passing for the pitch (Tolonen & Karjalainen 2000).

    power: (batch, frames, frequencies), weight: (batch, frames), table: as `echoes` gives it
    """
    roots = power.nan_to_num().clamp(min=1e-9).pow(1 / 3)
    repeats = (roots @ table[:, 1:]) / (roots @ table[:, :1])
    best = repeats.amax(dim=2)
    octaves = torch.linspace(0.0, math.log2(HIGHEST / LOWEST), PITCHES, device=power.device)
    height = torch.softmax(SHARPNESS * repeats, dim=2) @ octaves
    voiced = weight * torch.sigmoid((best - VOICED) * CLEARNESS)
    mean = _mean(height, voiced)
    spread = _mean((height - mean.unsqueeze(1)).square(), voiced).add(1e-4).sqrt()
    return torch.stack([2.0 * (mean - 1.3), 6.0 * (spread - 0.4), 8.0 * (_mean(best, weight) - 0.4)], dim=1)


def echoes(window: int, rate: float) -> Tensor:
    """What turns the power at each frequency into the autocorrelation at no lag, and at a period of every pitch.

    (window // 2 + 1, 1 + pitches)
    """
    bins = torch.arange(window // 2 + 1)
    lags = rate / LOWEST * (LOWEST / HIGHEST) ** torch.linspace(0.0, 1.0, PITCHES)
    waves = (bins.unsqueeze(1) * torch.cat([torch.zeros(1), lags]) * (2 * math.pi / window)).cos()
    twice = 2.0 - (bins % (window / 2) == 0).to(waves.dtype)  # all but the first and the last stand for a mirrored one
    return waves * twice.unsqueeze(1) / window


def _nats(mel: Tensor) -> Tensor:
    """Log of a frame's power, the mean over its bands: (batch, frames, mels) → (batch, frames)"""
    return (4.0 * mel - 4.0).exp().mean(dim=2).log()


def _mean(x: Tensor, weight: Tensor) -> Tensor:
    """Over time: x: (batch, time, ...), weight: (batch, time) → (batch, ...)"""
    total = weight.sum(dim=1).clamp(min=1e-6)
    return (x * weight.reshape(*weight.shape, *[1] * (x.dim() - 2))).sum(dim=1) / total.reshape(
        -1, *[1] * (x.dim() - 2)
    )
