"""What audio backbones share: the waveform that they expect, power spectra and mel bands."""

from __future__ import annotations

import math
from abc import ABC
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from triptych.errors import ModelError
from triptych.model.backbones.backbone import Backbone
from triptych.model.config import Precision
from triptych.schema import Kind, Modality

RATE = 16_000  # Hz, of every audio backbone
_KNEE_HZ, _KNEE = 1000.0, 15.0  # below: linear, 200/3 Hz per mel; above: logarithmic, 27 mels per factor of 6.4
_PER_MEL = 200 / 3
_GROWTH = math.log(6.4) / 27


class AudioBackbone(Backbone, ABC):
    """Reads (batch, samples) float32 at 16 kHz from −1 to 1, NaN beyond a clip's end."""

    kind: ClassVar[Kind] = "audio"

    def __init__(self, modality: Modality, sizes: Any, precision: Precision) -> None:
        super().__init__(modality, sizes, precision)
        if modality.sample_rate != RATE:
            given = f"{modality.name!r} has {modality.sample_rate} Hz"
            raise ModelError(f"this backbone was trained at {RATE} Hz, {given}; resample the clips to {RATE} Hz")

    @staticmethod
    def no_image(image: tuple[int, int] | None) -> None:
        """Raise ModelError if a size in pixels was asked for."""
        if image is not None:
            raise ModelError(f"an audio backbone has no image size, got image={image}")


def fitted(raw: Tensor, samples: int) -> tuple[Tensor, Tensor]:
    """Crop or fill up: the wave with zeros beyond the clip's end, and bool where it is real: (batch, samples) each."""
    wave = raw[:, :samples]
    if raw.shape[1] < samples:
        wave = functional.pad(wave, (0, samples - raw.shape[1]), value=math.nan)
    beyond = wave.isnan()
    return wave.masked_fill(beyond, 0.0), ~beyond


def power(wave: Tensor, *, window: int, hop: int, bins: int) -> Tensor:
    """Squared spectrum of Hann-windowed frames: (batch, frames, bins // 2 + 1).

    By the fast transform or, in a graph, by a convolution that runtimes run fast.
    wave: (batch, samples);  window, hop: samples;  bins: samples of a frame with the zeros after it
    """
    if not torch.compiler.is_exporting():
        frames = wave.unfold(1, window, hop) * torch.hann_window(window, device=wave.device)
        spectrum: Tensor = torch.fft.rfft(frames, n=bins)
        return spectrum.abs().square()
    parts = functional.conv1d(wave.unsqueeze(1), filters(window, bins), stride=hop)
    real, imaginary = parts.chunk(2, dim=1)
    return (real * real + imaginary * imaginary).transpose(1, 2)


def filters(window: int, bins: int) -> Tensor:
    """Hann-windowed cosines and sines, one pair per frequency: (2·(bins//2 + 1), 1, window)."""
    time = torch.arange(window)
    hann = 0.5 - 0.5 * (time * (2 * math.pi / window)).cos()
    turn = (torch.arange(bins // 2 + 1).unsqueeze(1) * time) % bins * (2 * math.pi / bins)
    return (torch.cat([turn.cos(), turn.sin()]) * hann).unsqueeze(1)


def slaney_bank(*, bins: int, mels: int, low: float, high: float) -> Tensor:
    """Triangles of equal area, even on Slaney's mel scale (Auditory Toolbox, 1998): (bins // 2 + 1, mels) float32.

    bins: samples of a frame;  low, high: Hz of the outermost edges
    """
    first, last = _mel(low), _mel(high)
    edges = torch.tensor(
        [_hertz(first + (last - first) * i / (mels + 1)) for i in range(mels + 2)], dtype=torch.float64
    )
    hertz = (torch.arange(bins // 2 + 1, dtype=torch.float64) * (RATE / bins)).unsqueeze(1)
    rising = (hertz - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - hertz) / (edges[2:] - edges[1:-1])
    bank = torch.minimum(rising, falling).clamp(min=0) * (2 / (edges[2:] - edges[:-2]))
    return bank.to(torch.float32)


def _mel(hertz: float) -> float:
    return hertz / _PER_MEL if hertz < _KNEE_HZ else _KNEE + math.log(hertz / _KNEE_HZ) / _GROWTH


def _hertz(mel: float) -> float:
    return mel * _PER_MEL if mel < _KNEE else _KNEE_HZ * math.exp((mel - _KNEE) * _GROWTH)
