"""Noise in the raw values of single modalities: to train with, to sweep over, and to teach a gate what noise is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import final

import torch
from torch import Generator, Tensor

from triptych.schema import Modality, Schema
from triptych.tokens import Batch


def corrupted(modality: Modality, raw: Tensor, strength: Tensor, generator: Generator) -> Tensor:
    """Raw values with that part of them replaced by noise of their own size; 1 leaves nothing of them.

    raw: as in `Batch.inputs`; strength: (batch,) in [0, 1].  What is missing stays missing.
    """
    part = strength.view(-1, *[1] * (raw.ndim - 1))
    if raw.dtype == torch.int64:
        words = torch.randint(1, max(2, modality.vocabulary), raw.shape, generator=generator)
        return torch.where((torch.rand(raw.shape, generator=generator) < part) & (raw != 0), words, raw)
    if raw.dtype == torch.uint8:
        noise = torch.randint(0, 256, raw.shape, generator=generator)
        return torch.lerp(raw.float(), noise.float(), part.expand(raw.shape)).round().to(torch.uint8)
    noise = torch.randn(raw.shape, generator=generator)
    if modality.kind == "audio":
        noise = noise * raw.nan_to_num().square().mean(dim=1, keepdim=True).sqrt()
    elif modality.center:
        noise = noise * torch.tensor(modality.scale) + torch.tensor(modality.center)
    return torch.lerp(raw, noise, part.expand(raw.shape))


@final
@dataclass(frozen=True)
class Corrupt:
    """With this probability noise gets into one modality of a row, of a strength drawn evenly.

    whole: share of those rows in which noise leaves nothing of the modality
    """

    schema: Schema
    probability: float
    whole: float = 0.0

    def __call__(self, batch: Batch, generator: Generator) -> Batch:
        """The same rows, some of them noisy."""
        names = [name for name in self.schema.names if name in batch.inputs]
        rows = len(batch)
        which = torch.randint(0, len(names), (rows,), generator=generator)
        hit = torch.rand(rows, generator=generator) < self.probability
        strength = (torch.rand(rows, generator=generator) / max(1 - self.whole, 1e-9)).clamp(max=1.0)
        inputs = {
            name: corrupted(self.schema[name], batch.inputs[name], strength * (hit & (which == place)), generator)
            for place, name in enumerate(names)
        }
        return replace(batch, inputs=inputs)


@final
@dataclass(frozen=True)
class Ladder:
    """The same rows several times, with ever more of the same noise in one modality, and on the last rung nothing else.

    strength: (rungs,) rising, of which each rung has one
    """

    name: str
    strength: Tensor
    rungs: tuple[Batch, ...]


def ladders(schema: Schema, batches: Iterable[Batch], seed: int = 0, rungs: int = 5) -> Iterator[Ladder]:
    """One for every batch and each of its modalities; the strengths between none and all are drawn evenly."""
    generator = torch.Generator().manual_seed(seed)
    for batch in batches:
        for name in (name for name in schema.names if name in batch.inputs):
            between = torch.rand(rungs - 2, generator=generator).sort().values
            strength = torch.cat([torch.zeros(1), between, torch.ones(1)])
            noise = int(torch.randint(1 << 62, (), generator=generator))
            yield Ladder(name, strength, tuple(_with_noise(batch, schema[name], s, noise) for s in strength))


def _with_noise(batch: Batch, modality: Modality, strength: Tensor, seed: int) -> Batch:
    raw, generator = batch.inputs[modality.name], torch.Generator().manual_seed(seed)
    noisy = corrupted(modality, raw, strength.expand(len(batch)), generator)
    return replace(batch, inputs={**batch.inputs, modality.name: noisy})
