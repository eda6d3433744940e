"""What the stems of waveforms share: log-mel frames (the front end of Gong et al. 2021, AST), computed in the graph."""

from __future__ import annotations

import math
from abc import ABC
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from triptych.model.config import EncoderConfig, Precision
from triptych.model.stems.stem import Stem
from triptych.schema import Kind, Modality


class LogMelStem(Stem, ABC):
    """Frames of `window_s` every `hop_s`, in `mels` bands; clips are cut or filled up to the longest one."""

    kind: ClassVar[Kind] = "audio"

    def __init__(self, modality: Modality, encoder: EncoderConfig, precision: Precision) -> None:
        super().__init__(modality, encoder, precision)
        stem = encoder.stem
        self.shrink, self.mels, self.rate = stem.shrink, stem.mels, modality.sample_rate / stem.shrink
        self.window, self.hop = round(stem.window_s * self.rate), round(stem.hop_s * self.rate)
        self.samples = -(-max(modality.max_samples // self.shrink, self.window) // 8) * 8
        self.frames = (self.samples - self.window) // self.hop + 1
        average = torch.eye(8).repeat_interleave(self.shrink, dim=0) / self.shrink  # eight at a time: one fast product
        self.register_buffer("average", average, persistent=False)
        self.register_buffer("hann", hann(self.window), persistent=False)
        self.register_buffer("bank", mel_bank(self.window, self.rate, self.mels), persistent=False)
        self.average: Tensor
        self.hann: Tensor
        self.bank: Tensor

    def power(self, raw: Tensor) -> Tensor:
        """Of each frame and frequency, NaN where a frame reaches beyond the clip: (batch, frames, window // 2 + 1).

        raw: (batch, samples) float32, NaN beyond a clip's end
        """
        samples = self.samples * self.shrink
        wave = raw[:, :samples]
        if raw.shape[1] < samples:
            wave = functional.pad(wave, (0, samples - raw.shape[1]), value=math.nan)
        if self.shrink > 1:
            wave = (torch.unflatten(wave, 1, (-1, len(self.average))) @ self.average).flatten(1)
        return self._transform(wave)

    def log_mel(self, power: Tensor) -> tuple[Tensor, Tensor]:
        """About zero mean and unit spread for speech; frames that reach beyond the clip are zero and not real.

        power: (batch, frames, frequencies) → (batch, frames, mels), (batch, frames) bool
        """
        bands = power @ self._bank()
        beyond = bands.isnan()
        mel = (bands.clamp(min=1e-6).log() + 4.0) / 4.0
        return mel.masked_fill(beyond, 0.0), ~beyond[..., 0]

    def _transform(self, wave: Tensor) -> Tensor:
        """By the fast transform or, in a graph, by a convolution that runtimes run fast."""
        if not torch.compiler.is_exporting():
            spectrum: Tensor = torch.fft.rfft(wave.unfold(1, self.window, self.hop) * self.hann)
            return spectrum.abs().square()
        parts = functional.conv1d(wave.unsqueeze(1), fourier_filters(self.window), stride=self.hop)
        real, imaginary = parts.chunk(2, dim=1)
        return (real * real + imaginary * imaginary).transpose(1, 2)

    def _bank(self) -> Tensor:
        """In a graph a formula, which is smaller than the matrix that it gives."""
        return mel_bank(self.window, self.rate, self.mels) if torch.compiler.is_exporting() else self.bank


def hann(window: int) -> Tensor:
    """Hann window with unit power gain: (window,)."""
    return (1 - (torch.arange(window) * (2 * math.pi / window)).cos()) / math.sqrt(window)


def fourier_filters(window: int) -> Tensor:
    """Hann-windowed cosines and sines, one pair per frequency bin: (2·(window//2 + 1), 1, window)."""
    time = torch.arange(window)
    turn = (torch.arange(window // 2 + 1).unsqueeze(1) * time) % window * (2 * math.pi / window)
    return (torch.cat([turn.cos(), turn.sin()]) * hann(window)).unsqueeze(1)


def mel_bank(window: int, rate: float, mels: int) -> Tensor:
    """Triangles evenly spaced on the mel scale from 20 Hz to half the rate, each summing to one: (window//2 + 1, mels).

    A triangle is never narrower than two bins, so that none is empty.
    """
    low, high = (2595 * math.log10(1 + hertz / 700) for hertz in (20, rate / 2))
    edges = 700 * (10 ** (torch.linspace(low, high, mels + 2) / 2595) - 1)
    bins = (torch.arange(window // 2 + 1) * (rate / window)).unsqueeze(1)
    middle, least = edges[1:-1], rate / window
    rising = (bins - middle) / (middle - edges[:-2]).clamp(min=least) + 1
    falling = (middle - bins) / (edges[2:] - middle).clamp(min=least) + 1
    bank = torch.minimum(rising, falling).clamp(min=0)
    return bank / bank.sum(dim=0).clamp(min=1e-3)
