"""Decoded examples to padded arrays. Torch-free: the runtime batches with the same code as training."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triptych.data.resize import resize
from triptych.errors import DataError, UnknownModality
from triptych.schema import Modality, Schema

Array = NDArray[Any]
Example = Mapping[str, Array | None]
_FORM: dict[str, tuple[type[np.generic], float]] = {
    "image": (np.uint8, 0),
    "audio": (np.float32, math.nan),
    "text": (np.int64, 0),
    "series": (np.float32, math.nan),
    "table": (np.float32, math.nan),
    "video": (np.uint8, 0),
    "points": (np.float32, math.nan),
    "codes": (np.int64, 0),
}


def conform(modality: Modality, array: Array) -> Array:
    """Resize an image to the schema's size; crop a clip, text, series or codes to the schema's length.

    Of a video, as many frames as the schema says are taken evenly, some twice where it has fewer, and resized; a cloud
    of too many points is thinned evenly.

    array: what `decode` returns.  Raises DataError if it has another shape or type.
    """
    _check_form(modality, array)
    if modality.kind == "image":
        return resize(array, modality.height, modality.width)
    if modality.kind == "video":
        frames = array[_evenly(len(array), modality.frames or len(array))]
        height, width = modality.height or array.shape[1], modality.width or array.shape[2]
        return np.stack([resize(frame, height, width) for frame in frames])
    if modality.kind == "points" and 0 < modality.max_points < len(array):
        return array[_evenly(len(array), modality.max_points)]
    return array if modality.kind == "table" else array[: length(modality) or None]


def _evenly(count: int, wanted: int) -> Array:
    """Indices from the middle of equal spans: (wanted,) int64."""
    return (2 * np.arange(wanted) + 1) * count // (2 * wanted)


def _check_form(modality: Modality, array: Array) -> None:
    pixels, channels = (None, modality.channels), (modality.channels,)
    wanted: dict[str, tuple[int | None, ...]] = {
        "image": pixels,
        "video": (None, *pixels),
        **dict.fromkeys(("series", "points", "codes"), channels),
    }
    rest = wanted.get(modality.kind, ())
    first = len(modality.fields) if modality.kind == "table" else None
    expected = (first, *rest)
    fits = len(array.shape) == len(expected) and all(
        e in {None, 0, n} for e, n in zip(expected, array.shape, strict=True)
    )
    dtype = _FORM[modality.kind][0]
    if not fits or array.dtype != dtype:
        shape = tuple("any" if e is None else e for e in expected)
        given = f"{array.shape} {array.dtype}"
        raise DataError(f"{modality.name!r} is {given}, expected {shape} {dtype.__name__}; decode the value first")


def length(modality: Modality) -> int:
    """Longest first axis of an example; 0 where the schema sets none."""
    match modality.kind:
        case "audio":
            return modality.max_samples
        case "text" | "codes":
            return modality.max_tokens
        case "series" | "video":
            return modality.frames
        case "points":
            return modality.max_points
        case "image":
            return modality.height
        case "table":
            return len(modality.fields)


def blank(modality: Modality, batch: int, first: int, rest: tuple[int, ...] = ()) -> Array:
    """An array of fillers: (batch, first, *rest)."""
    dtype, filler = _FORM[modality.kind]
    return np.full((batch, first, *rest), filler, dtype)


def stack(modality: Modality, values: Sequence[Array | None]) -> Array:
    """Pad and stack examples; None becomes the filler.  Returns (batch, …) as `tokens.Batch` describes."""
    arrays = [None if v is None else conform(modality, v) for v in values]
    real = [a for a in arrays if a is not None]
    if not real:
        raise DataError(f"no row holds {modality.name!r}; leave the modality out of the batch")
    longest = max(1, *(len(a) for a in real))
    fixed = longest if modality.kind == "text" else length(modality) or longest
    result = blank(modality, len(values), fixed, real[0].shape[1:])
    for row, array in zip(result, arrays, strict=True):
        if array is not None:
            row[: len(array)] = array
    return result


def collate(examples: Sequence[Example], schema: Schema) -> tuple[dict[str, Array], dict[str, Array]]:
    """Pad decoded examples into one batch.

    Returns (inputs, present): arrays by modality name as `tokens.Batch` describes, and (batch,) bool for each
    modality that only some rows have.  Raises DataError on an empty batch or a row without any modality,
    UnknownModality on a name that the schema lacks.
    """
    if not examples:
        raise DataError("a batch needs at least one row, got none")
    if unknown := {name for example in examples for name in example} - set(schema.names):
        raise UnknownModality(f"no modality {sorted(unknown)}; this schema has {list(schema.names)}")
    for number, example in enumerate(examples):
        if all(value is None for value in example.values()):
            raise DataError(f"row {number} of the batch has no modality; give at least one of {list(schema.names)}")
    inputs, present = {}, {}
    for modality in schema.modalities:
        values = [example.get(modality.name) for example in examples]
        have = np.array([value is not None for value in values])
        if have.any():
            inputs[modality.name] = stack(modality, values)
        if have.any() and not have.all():
            present[modality.name] = have
    return inputs, present
