"""Random changes to one raw modality.  Missing values stay missing, rows without the modality stay untouched."""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import final

import torch
from torch import Generator, Tensor

from triptych.errors import RecipeError
from triptych.tokens import Batch

_BEND = 11.4  # mel scale at 16 kHz: 8000 Hz / 700 Hz


@dataclass(frozen=True)
class Distortion(ABC):
    """A random change to the modality `name`; subclasses say which."""

    name: str

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, int | float) and value < 0:
                raise RecipeError(f"{type(self).__name__}.{field.name} must not be negative, got {value}")

    def __call__(self, batch: Batch, generator: Generator) -> Batch:
        """The batch with this modality changed; the same batch where no row has it."""
        if self.name not in batch.inputs:
            return batch
        x = batch.inputs[self.name]
        changed = self.change(x, generator)
        if self.name in batch.present:
            absent = ~batch.present[self.name]
            changed[absent] = x[absent]
        return dataclasses.replace(batch, inputs={**batch.inputs, self.name: changed})

    @abstractmethod
    def change(self, x: Tensor, generator: Generator) -> Tensor:
        """Return a changed copy of `x`, which is as in `Batch.inputs`."""


@final
@dataclass(frozen=True)
class ShiftImage(Distortion):
    """Move by up to `pixels` in both directions, repeating the edge."""

    pixels: int = 4

    def change(self, x: Tensor, generator: Generator) -> Tensor:
        """x: (batch, height, width, channels) uint8"""
        rows, height, width = x.shape[:3]
        moves = torch.randint(-self.pixels, self.pixels + 1, (2, rows, 1), generator=generator)
        down = (torch.arange(height) + moves[0]).clamp(0, height - 1)
        across = (torch.arange(width) + moves[1]).clamp(0, width - 1)
        return x[torch.arange(rows)[:, None, None], down[:, :, None], across[:, None, :]]


@final
@dataclass(frozen=True)
class FlipImage(Distortion):
    """Mirror left and right; off in the defaults because letters and digits do not survive it."""

    probability: float = 0.5

    def change(self, x: Tensor, generator: Generator) -> Tensor:
        """x: (batch, height, width, channels) uint8"""
        mirrored = torch.rand(len(x), generator=generator) < self.probability
        return torch.where(mirrored[:, None, None, None], x.flip(2), x)


@final
@dataclass(frozen=True)
class CropImage(Distortion):
    """Cut away up to `fraction` of the height and of the width and stretch what is left to the old size."""

    fraction: float = 0.2

    def change(self, x: Tensor, generator: Generator) -> Tensor:
        """x: (batch, height, width, channels) uint8"""
        rows, height, width = x.shape[:3]
        cut, above, left = torch.rand((3, rows, 1), generator=generator)
        cut = cut * min(self.fraction, 0.9)
        down = _stretched(height, cut, above)
        across = _stretched(width, cut, left)
        return x[torch.arange(rows)[:, None, None], down[:, :, None], across[:, None, :]]


@final
@dataclass(frozen=True)
class Tint(Distortion):
    """Make each colour channel stronger or weaker by up to `strength`."""

    strength: float = 0.1

    def change(self, x: Tensor, generator: Generator) -> Tensor:
        """x: (batch, height, width, channels) uint8"""
        draws = 2 * torch.rand((len(x), 1, 1, x.shape[3]), generator=generator) - 1
        return (x.float() * (1 + self.strength * draws)).round_().clamp_(0, 255).to(torch.uint8)


@final
@dataclass(frozen=True)
class Tone(Distortion):
    """Change brightness and contrast by up to these shares."""

    brightness: float = 0.1
    contrast: float = 0.1

    def change(self, x: Tensor, generator: Generator) -> Tensor:
        """x: (batch, height, width, channels) uint8"""
        offset = 255 * self.brightness * _symmetric(x, generator)
        gain = 1 + self.contrast * _symmetric(x, generator)
        pixels = x.float()
        mean = pixels.mean(dim=(1, 2, 3), keepdim=True)
        return ((pixels - mean) * gain + mean + offset).round_().clamp_(0, 255).to(torch.uint8)


@final
@dataclass(frozen=True)
class ShiftAudio(Distortion):
    """Move within the clip by up to `fraction` of its length, silence where nothing is left."""

    fraction: float = 0.1

    def change(self, x: Tensor, generator: Generator) -> Tensor:
        """x: (batch, samples) float32, NaN beyond a clip's end"""
        lengths = x.isfinite().sum(dim=1)
        moves = (lengths * self.fraction * (2 * torch.rand(len(x), generator=generator) - 1)).long()
        return _moved(x, moves.tolist(), lengths.tolist(), filler=0.0)


@final
@dataclass(frozen=True)
class Gain(Distortion):
    """Make louder or softer by up to `decibels`."""

    decibels: float = 6.0

    def change(self, x: Tensor, generator: Generator) -> Tensor:
        """x: (batch, samples) float32"""
        return x * 10 ** (self.decibels * _symmetric(x, generator) / 20)


@final
@dataclass(frozen=True)
class AudioNoise(Distortion):
    """Add white noise of up to `level` times the clip's own root mean square."""

    level: float = 0.05

    def change(self, x: Tensor, generator: Generator) -> Tensor:
        """x: (batch, samples) float32"""
        loudness = x.square().nanmean(dim=1, keepdim=True).sqrt().nan_to_num()
        amount = self.level * torch.rand((len(x), 1), generator=generator)
        return torch.randn(x.shape, generator=generator).mul_(loudness * amount).add_(x)


@final
@dataclass(frozen=True)
class MaskBand(Distortion):
    """Silence one band of up to `fraction` of the spectrum, on an axis that is spaced like hearing (Park et al. 2019).

    SpecAugment's frequency mask, done on the samples so that it needs no spectrogram.
    """

    fraction: float = 0.15

    def change(self, x: Tensor, generator: Generator) -> Tensor:
        """x: (batch, samples) float32"""
        draws = torch.rand((2, len(x), 1), generator=generator)
        wide = draws[0] * min(self.fraction, 1.0)
        start = draws[1] * (1 - wide)
        spectrum = torch.fft.rfft(x.nan_to_num())
        heard = torch.linspace(0, 1, spectrum.shape[1]).mul(_BEND).log1p() / math.log1p(_BEND)
        hidden = (heard >= start) & (heard < start + wide)
        filtered: Tensor = torch.fft.irfft(spectrum.masked_fill(hidden, 0), n=x.shape[1])
        return filtered.masked_fill(x.isnan(), torch.nan)


@final
@dataclass(frozen=True)
class MaskTime(Distortion):
    """Hide one stretch of up to `fraction` of the length: silence in audio, missing samples in a series."""

    fraction: float = 0.15

    def change(self, x: Tensor, generator: Generator) -> Tensor:
        """x: (batch, samples) or (batch, frames, channels) float32"""
        x = x.clone()
        real = x.isfinite() if x.ndim == 2 else x.isfinite().any(dim=2)
        draws = torch.rand((2, len(x)), generator=generator)
        sizes = (real.sum(dim=1) * self.fraction * draws[0]).long()
        starts = ((real.sum(dim=1) - sizes) * draws[1]).long()
        hidden = 0.0 if x.ndim == 2 else torch.nan
        for row, (start, size) in enumerate(zip(starts.tolist(), sizes.tolist(), strict=True)):
            x[row, start : start + size] = hidden
        return x


@final
@dataclass(frozen=True)
class Jitter(Distortion):
    """Add noise with a standard deviation of `sigma` times the spread of each channel or field."""

    sigma: float = 0.05
    spread: tuple[float, ...] = ()  # per channel or field; empty means one

    def change(self, x: Tensor, generator: Generator) -> Tensor:
        """x: (batch, frames, channels) or (batch, fields) float32"""
        spread = x.new_tensor(self.spread or 1.0)
        return x + self.sigma * spread * torch.randn(x.shape, generator=generator)


@final
@dataclass(frozen=True)
class ScaleSeries(Distortion):
    """Multiply each channel by one factor per row, spread by `sigma` around one."""

    sigma: float = 0.1

    def change(self, x: Tensor, generator: Generator) -> Tensor:
        """x: (batch, frames, channels) float32"""
        return x * (1 + self.sigma * torch.randn((len(x), 1, x.shape[2]), generator=generator))


@final
@dataclass(frozen=True)
class ShiftSeries(Distortion):
    """Move by up to `fraction` of the frames; what moves in is missing."""

    fraction: float = 0.1

    def change(self, x: Tensor, generator: Generator) -> Tensor:
        """x: (batch, frames, channels) float32"""
        frames = x.shape[1]
        most = int(frames * self.fraction)
        moves = torch.randint(-most, most + 1, (len(x),), generator=generator)
        return _moved(x, moves.tolist(), [frames] * len(x), filler=torch.nan)


@final
@dataclass(frozen=True)
class RotateSeries(Distortion):
    """Turn a three-axis sensor by up to `degrees` about a random axis; every triple of channels turns alike."""

    degrees: float = 15.0

    def change(self, x: Tensor, generator: Generator) -> Tensor:
        """x: (batch, frames, channels) float32, channels a multiple of three"""
        if x.shape[2] % 3:
            raise RecipeError(f"RotateSeries needs channels in threes; {self.name!r} has {x.shape[2]}")
        axis = torch.nn.functional.normalize(torch.randn((len(x), 3), generator=generator), dim=1)
        angle = torch.rand((len(x), 1), generator=generator) * self.degrees * torch.pi / 180
        triples = x.reshape(*x.shape[:2], -1, 3)
        turned = torch.einsum("bij,bftj->bfti", rotation(axis * angle), triples)
        return torch.where(turned.isfinite().all(dim=3, keepdim=True), turned, triples).flatten(2)


@final
@dataclass(frozen=True)
class WarpTime(Distortion):
    """Play parts faster and parts slower: each moment moves by up to `fraction` of the length, smoothly."""

    fraction: float = 0.05

    def change(self, x: Tensor, generator: Generator) -> Tensor:
        """x: (batch, frames, channels) float32"""
        frames = x.shape[1]
        time = torch.linspace(0, 1, frames)
        bends = torch.rand((2, len(x), 1), generator=generator) * 2 - 1
        # two half waves with slopes under one in sum, so that time never runs backwards and both ends stay
        size = min(self.fraction, 0.9 / (3 * torch.pi))
        moves = size * (bends[0] * (torch.pi * time).sin() + bends[1] * (2 * torch.pi * time).sin())
        place = (torch.arange(frames) + moves * (frames - 1)).clamp(0, frames - 1)
        before = place.floor().long().clamp(max=max(frames - 2, 0))
        part = (place - before)[:, :, None]
        rows = torch.arange(len(x))[:, None]
        first, second = x[rows, before], x[rows, (before + 1).clamp(max=frames - 1)]
        nearer = torch.where(part < 0.5, first, second)  # beside a gap there is nothing to interpolate with
        return torch.where((first + second).isnan(), nearer, first.lerp(second, part))


@final
@dataclass(frozen=True)
class DropFields(Distortion):
    """Hide each field of a table, or each word of a text, with this probability (NaN and [UNK])."""

    probability: float = 0.1

    def change(self, x: Tensor, generator: Generator) -> Tensor:
        """x: (batch, fields) float32 or (batch, tokens) int64"""
        hidden = torch.rand(x.shape, generator=generator) < self.probability
        if x.is_floating_point():
            return x.masked_fill(hidden, torch.nan)
        return x.masked_fill(hidden & (x > 0), 1)


def rotation(vector: Tensor) -> Tensor:
    """Rotation matrices from axis times angle: (batch, 3) to (batch, 3, 3), by the exponential map."""
    x, y, z = vector.unbind(dim=1)
    o = torch.zeros_like(x)
    skew = torch.stack([o, -z, y, z, o, -x, -y, x, o], dim=1).view(-1, 3, 3)
    turned: Tensor = torch.linalg.matrix_exp(skew)
    return turned


def _stretched(size: int, cut: Tensor, place: Tensor) -> Tensor:
    """Where each pixel of a cropped axis comes from: (batch, size).  cut, place: (batch, 1), shares in [0, 1)"""
    index = torch.arange(size) * (1 - cut) + (size - 1) * cut * place
    return index.round_().long()


def _symmetric(x: Tensor, generator: Generator) -> Tensor:
    """One number in [-1, 1) per row, shaped to multiply `x`."""
    return 2 * torch.rand((len(x), *([1] * (x.ndim - 1))), generator=generator) - 1


def _moved(x: Tensor, moves: list[int], lengths: list[int], *, filler: float) -> Tensor:
    """Shift the first `lengths` steps of each row along axis 1; row slices beat one big gather tenfold."""
    out = x.clone()
    for row, (move, length) in enumerate(zip(moves, lengths, strict=True)):
        out[row, :length] = filler
        if move >= 0:
            out[row, move:length] = x[row, : length - move]
        else:
            out[row, : length + move] = x[row, -move:length]
    return out
