"""Waveforms to log-mel tokens (the front end of Gong et al. 2021, AST)."""

from __future__ import annotations

import math
from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional

from triptych.model.config import EncoderConfig, Precision
from triptych.model.dense import Dense
from triptych.schema import Modality
from triptych.tokens import Tokens


@final
class AudioStem(nn.Module):
    """(batch, samples) float32, NaN beyond a clip's end → a token per run of log-mel frames."""

    def __init__(self, modality: Modality, encoder: EncoderConfig, precision: Precision) -> None:
        super().__init__()
        stem = encoder.stem
        self.window = round(stem.window_s * modality.sample_rate)
        self.hop = round(stem.hop_s * modality.sample_rate)
        self.mels = stem.mels
        frames = max(1, -(-modality.max_samples // self.hop))
        self.run = -(-frames // stem.max_tokens)
        self.tokens = -(-frames // self.run)
        self.grid: tuple[int, ...] = (self.tokens,)
        self.frames = self.tokens * self.run
        self.samples = (self.frames - 1) * self.hop + self.window
        self.rate = modality.sample_rate
        self.project = Dense(self.run * stem.mels, encoder.dim, precision=precision)
        self.position = nn.Parameter(torch.randn(self.tokens, encoder.dim) * 0.02)
        self.register_buffer("fourier", fourier_filters(self.window), persistent=False)
        self.register_buffer("bank", mel_bank(self.window, self.rate, self.mels), persistent=False)
        self.fourier: Tensor
        self.bank: Tensor

    def forward(self, wave: Tensor) -> Tokens:
        """wave: (batch, samples) float32"""
        wave = functional.pad(wave[:, : self.samples], (0, max(0, self.samples - wave.shape[1])), value=math.nan)
        silent = wave.isnan()
        mask = ~silent[:, :: self.hop * self.run][:, : self.tokens]
        x = self.log_mel(wave.masked_fill(silent, 0.0))
        x = x.unflatten(1, (self.tokens, self.run)).flatten(2)
        return Tokens(self.project(x) + self.position, mask)

    def log_mel(self, wave: Tensor) -> Tensor:
        """wave: (batch, samples) → (batch, frames, mels), about zero mean and unit spread for speech"""
        parts = functional.conv1d(wave.unsqueeze(1), self.fourier, stride=self.hop)
        real, imaginary = parts.chunk(2, dim=1)
        power = (real * real + imaginary * imaginary).transpose(1, 2)
        return ((power @ self.bank).clamp(min=1e-6).log() + 4.0) / 4.0


def fourier_filters(window: int) -> Tensor:
    """Hann-windowed cosines and sines, one pair per frequency bin: (2·(window//2 + 1), 1, window)."""
    time = torch.arange(window, dtype=torch.float64)
    bins = torch.arange(window // 2 + 1, dtype=torch.float64)
    angle = 2 * math.pi * torch.outer(bins, time) / window
    hann = torch.hann_window(window, periodic=True, dtype=torch.float64) * 2 / math.sqrt(window)
    return torch.cat([angle.cos() * hann, angle.sin() * hann]).unsqueeze(1).float()


def mel_bank(window: int, rate: int, mels: int) -> Tensor:
    """Triangles evenly spaced on the mel scale from 20 Hz to half the rate: (window//2 + 1, mels)."""
    top = 2595 * math.log10(1 + rate / 2 / 700)
    low = 2595 * math.log10(1 + 20 / 700)
    edges = 700 * (10 ** (torch.linspace(low, top, mels + 2, dtype=torch.float64) / 2595) - 1)
    bins = torch.arange(window // 2 + 1, dtype=torch.float64).unsqueeze(1) * rate / window
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    bank = torch.minimum(rising, falling).clamp(min=0)
    nearest = (edges[1:-1] * window / rate).round().long().clamp(max=window // 2)
    empty = bank.sum(dim=0) == 0
    bank[nearest[empty], empty.nonzero().squeeze(1)] = 1.0
    return (bank / bank.sum(dim=0)).float()
