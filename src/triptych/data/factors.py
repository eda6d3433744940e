"""Data whose modalities share some factors, keep others to themselves, and show one only when read together.

What a modality knows is then known beforehand: the ground truth for measures of redundancy, uniqueness and synergy
(Williams and Beer 2010, partial information decomposition), and for whether experts specialise on it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from triptych.data.dataset import Dataset, Split
from triptych.data.feed import Table
from triptych.errors import DataError
from triptych.schema import Modality, Schema

Array = NDArray[Any]
SHARED, UNIQUE, PART = "shared", "unique", "part"
PARTS = (SHARED, UNIQUE, PART)
_SPLITS = ("train", "validation", "test")


@final
@dataclass(frozen=True)
class Factors:
    """Sizes of a made dataset.  Every modality is a series whose frames show one factor each, in a pattern of its own.

    A factor's value is drawn evenly; `frames` frames in a row show it, with normal noise of spread `noise` upon a
    pattern of spread one.  Values of the parts are drawn so that any one modality's says nothing about `together`,
    the sum of all parts modulo `values`.
    """

    modalities: tuple[str, ...] = ("one", "two")
    values: int = 4
    frames: int = 4
    channels: int = 8
    noise: float = 1.0
    rows: Mapping[str, int] = dataclasses.field(
        default_factory=lambda: {"train": 2000, "validation": 400, "test": 1000}
    )

    def __post_init__(self) -> None:
        if len(self.modalities) < 2 or self.values < 2:
            got = f"{len(self.modalities)} modalities and {self.values} values"
            raise DataError(f"factors need two modalities and two values at least, got {got}")
        if set(self.rows) != set(_SPLITS):
            raise DataError(f"rows must be given for {_SPLITS}, got {sorted(self.rows)}")


@final
@dataclass(frozen=True, eq=False)
class Made:
    """A made dataset and the truth about it.

    data:    its target is `together`
    factors: values by split and factor, (rows,) int64: 'shared'; 'unique.MODALITY' and 'part.MODALITY' for each
             modality; 'together'
    frames:  which factor every frame of a modality shows, by modality, as names in `factors`
    """

    data: Dataset
    factors: Mapping[str, Mapping[str, Array]]
    frames: Mapping[str, tuple[str, ...]]


def make_factors(sizes: Factors = Factors(), *, seed: int = 0) -> Made:
    """Draw a dataset; the same seed gives the same one."""
    rng = np.random.default_rng(seed)
    patterns = {
        name: rng.normal(size=(len(PARTS), sizes.values, sizes.frames, sizes.channels)) for name in sizes.modalities
    }
    drawn = {split: _draw(sizes, sizes.rows[split], rng) for split in _SPLITS}
    raws = {split: _show(sizes, drawn[split], patterns, rng) for split in _SPLITS}
    schema = _schema(sizes, raws["train"])
    splits = {split: _split(split, schema, raws[split], drawn[split]["together"]) for split in _SPLITS}
    frames = {
        name: tuple(factor for part in PARTS for factor in (factor_of(part, name),) * sizes.frames)
        for name in sizes.modalities
    }
    return Made(Dataset(schema, splits, {"licence": "none, made up"}), drawn, frames)


def factor_of(part: str, modality: str) -> str:
    """Name of the factor that a part of a modality's frames shows."""
    return part if part == SHARED else f"{part}.{modality}"


def _draw(sizes: Factors, rows: int, rng: np.random.Generator) -> dict[str, Array]:
    names = [SHARED, *(f"{part}.{name}" for part in (UNIQUE, PART) for name in sizes.modalities)]
    values: dict[str, Array] = {name: rng.integers(sizes.values, size=rows) for name in names}
    parts = np.stack([values[f"{PART}.{name}"] for name in sizes.modalities])
    return {**values, "together": parts.sum(axis=0) % sizes.values}


def _show(
    sizes: Factors, drawn: Mapping[str, Array], patterns: Mapping[str, Array], rng: np.random.Generator
) -> dict[str, Array]:
    """Frames of every modality: (rows, frames, channels) float32."""
    shown = {}
    for name in sizes.modalities:
        clean = [patterns[name][number][drawn[factor_of(part, name)]] for number, part in enumerate(PARTS)]
        frames = np.concatenate(clean, axis=1)
        shown[name] = (frames + sizes.noise * rng.normal(size=frames.shape)).astype(np.float32)
    return shown


def _schema(sizes: Factors, raws: Mapping[str, Array]) -> Schema:
    modalities = []
    for name, raw in raws.items():
        flat = raw.reshape(-1, sizes.channels)
        center, scale = (tuple(map(float, part)) for part in (np.median(flat, axis=0), flat.std(axis=0)))
        shape = {"frames": raw.shape[1], "channels": sizes.channels}
        modalities.append(Modality(name, "series", rate_hz=1.0, center=center, scale=scale, **shape))
    classes = tuple(map(str, range(sizes.values)))
    return Schema("factors", tuple(modalities), "together", "classification", "accuracy", classes=classes)


def _split(name: str, schema: Schema, raws: Mapping[str, Array], target: Array) -> Split:
    columns = {"id": pa.array([f"{name}-{number}" for number in range(len(target))])}
    columns |= {modality: pa.array(np.zeros(len(target), np.float32)) for modality in raws}
    table = Table(name, pa.table(columns), root=Path())
    for modality, raw in raws.items():
        table = table.providing(schema[modality], raw)
    return Split(name, table, schema, np.arange(len(target)), target.astype(np.int64))
