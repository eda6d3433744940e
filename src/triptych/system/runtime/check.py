"""Raw inputs against the schema: names, types, shapes and values, before any graph sees them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triptych.errors import SchemaError, UnknownModality
from triptych.schema import Modality, Schema

Array = NDArray[Any]
_DTYPE = {
    "image": np.dtype(np.uint8),
    "audio": np.dtype(np.float32),
    "text": np.dtype(np.int64),
    "series": np.dtype(np.float32),
    "table": np.dtype(np.float32),
}


def row_shape(modality: Modality) -> tuple[int, ...]:
    """Shape of one raw row; 0 where any length will do."""
    match modality.kind:
        case "image":
            return (modality.height, modality.width, modality.channels)
        case "audio":
            return (modality.max_samples,)
        case "text":
            return (0,)
        case "series":
            return (modality.frames, modality.channels or len(modality.fields))
        case "table":
            return (len(modality.fields),)


def check_inputs(schema: Schema, inputs: Mapping[str, Array]) -> None:
    """Raise UnknownModality or SchemaError unless these are raw inputs of the schema with the same number of rows.

    inputs: by modality name as `tokens.Batch` describes; images may have any size
    """
    if unknown := [name for name in inputs if name not in schema.names]:
        raise UnknownModality(f"no encoder for {unknown}; this bundle has {list(schema.names)}")
    rows = {len(check_value(schema[name], value)) for name, value in inputs.items()}
    if len(rows) != 1:
        raise SchemaError(
            f"every modality must have the same number of rows, got {sorted(rows)}"
            if rows
            else f"every modality is missing; give at least one of {list(schema.names)}"
        )


def check_value(modality: Modality, value: Array) -> Array:
    """The raw input of one modality.  value: (batch, …).  Raises SchemaError."""
    dtype, shape = _DTYPE[modality.kind], row_shape(modality)
    if not isinstance(value, np.ndarray) or value.dtype != dtype:
        given = value.dtype if isinstance(value, np.ndarray) else type(value).__name__
        raise SchemaError(f"{modality.name!r} must be a numpy array of {dtype}, got {given}")
    if value.shape[1:] != shape and not _fits(value.shape, shape, any_size=modality.kind == "image"):
        wanted = ", ".join(["batch", *(str(axis or "any") for axis in shape)])
        raise SchemaError(f"{modality.name!r} must have the shape ({wanted}), got {value.shape}")
    if not value.size:
        raise SchemaError(f"{modality.name!r} is empty: its shape is {value.shape}; leave a missing modality out")
    _check_values(modality, value)
    return value


def _fits(given: tuple[int, ...], shape: tuple[int, ...], *, any_size: bool) -> bool:
    if any_size:
        shape = (0, 0, shape[2])
    return len(given) == len(shape) + 1 and all(want in {0, have} for have, want in zip(given[1:], shape, strict=True))


def _check_values(modality: Modality, value: Array) -> None:
    if value.dtype.kind == "f" and np.isinf(value).any():
        raise SchemaError(f"{modality.name!r} holds an infinity; numbers must be finite, or NaN where missing")
    if modality.kind == "text":
        if modality.max_tokens and value.shape[1] > modality.max_tokens:
            raise SchemaError(f"{modality.name!r} has {value.shape[1]} tokens, at most {modality.max_tokens} are read")
        low, high = int(value.min()), int(value.max())
        if low < 0 or (modality.vocabulary and high >= modality.vocabulary):
            raise SchemaError(f"{modality.name!r}: ids must be in [0, {modality.vocabulary}), got [{low}, {high}]")
