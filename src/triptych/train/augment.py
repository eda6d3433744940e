"""Random changes to whole batches: composition, defaults by kind, hidden modalities, artificial pairs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Self, final

import numpy as np
import torch
from torch import Generator, Tensor

from triptych.errors import RecipeError
from triptych.schema import Modality, Schema
from triptych.tokens import Batch, Mix
from triptych.train.config import DropUnit, TrainConfig
from triptych.train.distort import (
    AudioNoise,
    CropImage,
    DropFields,
    Gain,
    Jitter,
    MaskBand,
    MaskTime,
    RotateSeries,
    ScaleSeries,
    ShiftAudio,
    ShiftImage,
    ShiftSeries,
    Tint,
    Tone,
    WarpTime,
)

Augmentation = Callable[[Batch, Generator], Batch]


@final
@dataclass(frozen=True)
class Augment:
    """Several augmentations, one after the other."""

    steps: tuple[Augmentation, ...] = ()

    def __call__(self, batch: Batch, generator: Generator) -> Batch:
        """Apply every step.  Draws from `generator` only."""
        for step in self.steps:
            batch = step(batch, generator)
        return batch

    @classmethod
    def default(cls, schema: Schema, strength: float = 1.0) -> Self:
        """Sensible changes for each kind of modality; 0 is none, 1 is the usual amount."""
        if strength < 0:
            raise RecipeError(f"augmentation strength must not be negative, got {strength}")
        return cls(tuple(step for modality in schema.modalities for step in defaults(modality, strength) if strength))

    @classmethod
    def of(cls, config: TrainConfig, schema: Schema) -> Self | None:
        """From the options of a run: new partners, what the kinds allow, then mixup; None where they ask for none."""
        first: tuple[Augmentation, ...] = (RePair(),) if config.repair else ()
        more = tuple(step for modality in schema.modalities for step in _extras(modality, config))
        last: tuple[Augmentation, ...] = (Mixup(config.mixup),) if config.mixup else ()
        steps = (*first, *cls.default(schema, config.augment).steps, *more, *last)
        return cls(steps) if steps else None


def defaults(modality: Modality, strength: float) -> Sequence[Augmentation]:
    """The usual changes to one modality."""
    name, s = modality.name, strength
    match modality.kind:
        case "image":
            pixels = max(1, round(0.06 * s * min(modality.height, modality.width)))
            return ShiftImage(name, pixels), Tone(name, 0.1 * s, 0.15 * s)
        case "audio":
            return ShiftAudio(name, min(0.1 * s, 0.5)), Gain(name, 6 * s), AudioNoise(name, 0.05 * s), _mask(name, s)
        case "series":
            turn = (RotateSeries(name, 10 * s),) if modality.channels % 3 == 0 else ()
            noise = Jitter(name, 0.05 * s, modality.scale)
            return noise, ScaleSeries(name, 0.1 * s), ShiftSeries(name, min(0.05 * s, 0.5)), *turn, _mask(name, s)
        case "table":
            return Jitter(name, 0.05 * s, modality.scale), DropFields(name, min(0.05 * s, 0.5))
        case "text" | "video" | "codes":
            return (DropFields(name, min(0.1 * s, 0.5)),) if modality.kind == "text" else ()
        case "points":
            return (Jitter(name, 0.05 * s, modality.scale),)


def _extras(modality: Modality, config: TrainConfig) -> Sequence[Augmentation]:
    """Changes that only some datasets bear, asked for one by one."""
    steps: list[Augmentation] = []
    if modality.kind == "image":
        steps += [CropImage(modality.name, config.crop)] if config.crop else []
        steps += [Tint(modality.name, config.tint)] if config.tint else []
    if modality.kind == "series" and config.warp:
        steps.append(WarpTime(modality.name, config.warp))
    if modality.kind == "audio" and config.mask_bands:
        steps.append(MaskBand(modality.name, config.mask_bands))
    return steps


def _mask(name: str, strength: float) -> MaskTime:
    return MaskTime(name, min(0.15 * strength, 0.5))


@final
@dataclass(frozen=True)
class ModalityDropout:
    """Hide modalities with this probability so that the network learns to do without; never all of a row's.

    unit:  "row" draws per row, "batch" for all rows at once, which saves the encoder's work
    names: the modalities that may go
    """

    names: tuple[str, ...]
    probability: float = 0.2
    unit: DropUnit = "row"

    @classmethod
    def of(cls, config: TrainConfig, names: Sequence[str]) -> Self | None:
        """From the options of a run; None where they ask for none."""
        if not config.modality_dropout or len(names) < 2:
            return None
        return cls(tuple(names), config.modality_dropout, config.modality_dropout_unit)

    def __call__(self, batch: Batch, generator: Generator) -> Batch:
        """Draw what stays, then remove the rest."""
        names = [name for name in self.names if name in batch.inputs]
        if len(names) < 2:
            return batch
        had = torch.stack([present_rows(batch, name) for name in names])
        rows = 1 if self.unit == "batch" else len(batch)
        keep = torch.rand((len(names), rows), generator=generator) >= self.probability
        kept = had & keep
        # a row that would lose everything keeps one of its own, drawn evenly
        favourite = torch.rand((len(names), rows), generator=generator).masked_fill(~had, -1.0).argmax(dim=0)
        empty = ~kept.any(dim=0)
        kept[favourite[empty], empty.nonzero().squeeze(1)] |= had.any(dim=0)[empty]
        return hide(batch, {name: k for name, k, h in zip(names, kept, had, strict=True) if not k.equal(h)})


@final
@dataclass(frozen=True)
class RePair:
    """Shuffle each modality among the rows of equal class.

    For sets whose pairs are artificial (any image of a "3" fits any recording of "three"): multiplies the pairs seen.
    Rows of unknown class stay as they are.
    """

    def __call__(self, batch: Batch, generator: Generator) -> Batch:
        """Draw new partners.  Raises RecipeError for tasks without classes."""
        if batch.target is None or batch.target.is_floating_point() or batch.target.ndim > 1:
            raise RecipeError("RePair needs class targets: it exchanges inputs between rows of equal class")
        rows = torch.arange(len(batch))
        group = torch.where(batch.target < 0, -rows - 1, batch.target).double()
        order = group.argsort(stable=True)
        inputs, present = dict(batch.inputs), dict(batch.present)
        for name in inputs:
            shuffled = (group + 0.99 * torch.rand(len(rows), generator=generator, dtype=torch.float64)).argsort()
            partner = torch.empty_like(order).scatter_(0, order, shuffled)
            inputs[name] = inputs[name][partner]
            if name in present:
                present[name] = present[name][partner]
        return replace(batch, inputs=inputs, present=present)


@final
@dataclass(frozen=True)
class Mixup:
    """Blend each row with another one and let the loss count both targets (Zhang et al. 2018).

    The row's own share is drawn from Beta(alpha, alpha), the larger half of it.  Values blend where both rows have
    them; texts, and whatever the partner lacks, stay the row's own.
    """

    alpha: float = 0.2

    def __post_init__(self) -> None:
        if self.alpha <= 0:
            raise RecipeError(f"Mixup.alpha must be above zero, got {self.alpha}")

    def __call__(self, batch: Batch, generator: Generator) -> Batch:
        """Draw partners and shares, then blend."""
        seed = int(torch.randint(2**62, (), generator=generator))
        draws = np.random.default_rng(seed).beta(self.alpha, self.alpha, len(batch))
        share = torch.from_numpy(np.maximum(draws, 1 - draws)).float()
        partner = torch.randperm(len(batch), generator=generator)
        inputs = {}
        for name, x in batch.inputs.items():
            own = share if name not in batch.present else share.masked_fill(~batch.present[name][partner], 1.0)
            inputs[name] = _blend(x, x[partner], own)
        return replace(batch, inputs=inputs, mix=Mix(partner, share))


def _blend(x: Tensor, other: Tensor, share: Tensor) -> Tensor:
    """share · x + (1 − share) · other where both are known.  x, other: as in `Batch.inputs`; share: (batch,)"""
    if x.dtype == torch.int64:
        return x
    share = share.view(-1, *[1] * (x.ndim - 1))
    blended = torch.lerp(other.float(), x.float(), share)
    if x.dtype == torch.uint8:
        return blended.round_().to(torch.uint8)
    return torch.where(blended.isnan(), x, blended)


def take_rows(batch: Batch, index: Tensor) -> Batch:
    """A batch of some of the rows, before any are mixed.  index: (kept,) int64"""
    return replace(
        batch,
        inputs={name: x[index] for name, x in batch.inputs.items()},
        present={name: p[index] for name, p in batch.present.items()},
        target=None if batch.target is None else batch.target[index],
        rows=None if batch.rows is None else batch.rows[index],
    )


def present_rows(batch: Batch, name: str) -> Tensor:
    """Rows that hold a modality: (batch,) bool."""
    return batch.present[name] if name in batch.present else torch.ones(len(batch), dtype=torch.bool)


def hide(batch: Batch, kept: dict[str, Tensor]) -> Batch:
    """Blank the rows of each named modality that are not kept; drop a modality that no row keeps.

    kept: (batch,) bool by modality
    """
    inputs, present = dict(batch.inputs), dict(batch.present)
    for name, keep in kept.items():
        if not keep.any():
            del inputs[name]
            present.pop(name, None)
            continue
        x = inputs[name].clone()
        x[~keep] = torch.nan if x.is_floating_point() else 0
        inputs[name], present[name] = x, keep
    return replace(batch, inputs=inputs, present=present)
