"""Noise in the raw values of single modalities, to train with and to sweep over."""

from __future__ import annotations

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
