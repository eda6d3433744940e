"""Waveforms to log-mel tokens (the front end of Gong et al. 2021, AST)."""

from __future__ import annotations

import math
from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional

from triptych.model.config import EncoderConfig, Precision
from triptych.model.dense import Dense, Embedding
from triptych.schema import Modality
from triptych.tokens import Tokens


@final
class AudioStem(nn.Module):
    """(batch, samples) float32, NaN beyond a clip's end → a token per run of log-mel frames."""

    def __init__(self, modality: Modality, encoder: EncoderConfig, precision: Precision) -> None:
        super().__init__()
        stem = encoder.stem
        self.shrink, self.mels, self.rate = stem.shrink, stem.mels, modality.sample_rate / stem.shrink
        self.window, self.hop = round(stem.window_s * self.rate), round(stem.hop_s * self.rate)
        frames = max(1, -(-modality.max_samples // (self.hop * self.shrink)))
        self.run = -(-frames // stem.max_tokens)
        self.tokens = -(-frames // self.run)
        self.grid: tuple[int, ...] = (self.tokens,)
        self.samples = ((self.tokens * self.run - 1) * self.hop + self.window) * self.shrink
        self.project = Dense(self.run * stem.mels, encoder.dim, precision=precision)
        self.position = Embedding(self.tokens, encoder.dim, precision=precision)
        self.register_buffer("hann", hann(self.window), persistent=False)
        self.register_buffer("bank", mel_bank(self.window, self.rate, self.mels), persistent=False)
        self.hann: Tensor
        self.bank: Tensor

    def forward(self, wave: Tensor) -> Tokens:
        """wave: (batch, samples) float32"""
        wave = functional.pad(wave[:, : self.samples], (0, max(0, self.samples - wave.shape[1])), value=math.nan)
        silent = wave.isnan()
        mask = ~silent[:, :: self.hop * self.shrink * self.run][:, : self.tokens]
        wave = wave.masked_fill(silent, 0.0)
        if self.shrink > 1:
            wave = wave.unflatten(1, (-1, self.shrink)).mean(dim=2)
        x = self.log_mel(wave).unflatten(1, (self.tokens, self.run)).flatten(2)
        return Tokens(self.project(x) + self.position.rows(self.tokens), mask)

    def log_mel(self, wave: Tensor) -> Tensor:
        """wave: (batch, samples) → (batch, frames, mels), about zero mean and unit spread for speech"""
        return ((self._power(wave) @ self._bank()).clamp(min=1e-6).log() + 4.0) / 4.0

    def _power(self, wave: Tensor) -> Tensor:
        """Power per frame and frequency bin, by the fast transform or, in a graph, by a convolution that runtimes run fast."""
        if not torch.compiler.is_exporting():
            return torch.fft.rfft(wave.unfold(1, self.window, self.hop) * self.hann).abs().square()
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
