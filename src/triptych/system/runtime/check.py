"""Raw inputs against the schema: names, types, shapes and values, before any graph sees them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from triptych.errors import SchemaError, UnknownModality
from triptych.schema import Modality, Schema

Array = NDArray[Any]
_DTYPE: dict[str, np.dtype[Any]] = {
    "image": np.dtype(np.uint8),
    "audio": np.dtype(np.float32),
    "text": np.dtype(np.int64),
    "series": np.dtype(np.float32),
    "table": np.dtype(np.float32),
    "video": np.dtype(np.uint8),
    "points": np.dtype(np.float32),
    "codes": np.dtype(np.int64),
}


def row_shape(modality: Modality) -> tuple[int, ...]:
    """Shape of one raw row; 0 where any length will do."""
    shape: tuple[int, ...]
    match modality.kind:
        case "image":
            shape = (modality.height, modality.width, modality.channels)
        case "audio":
            shape = (modality.max_samples,)
        case "text":
            shape = (0,)
        case "series":
            shape = (modality.frames, modality.channels or len(modality.fields))
        case "table":
            shape = (len(modality.fields),)
        case "video":
            shape = (modality.frames, modality.height, modality.width, modality.channels)
        case "points":
            shape = (modality.max_points, modality.channels)
        case "codes":
            shape = (modality.max_tokens, modality.channels)
    return shape


@final
class Checker:
    """Knows the raw form of every modality of a schema."""

    def __init__(self, schema: Schema) -> None:
        self._forms = {m.name: (m, _DTYPE[m.kind], row_shape(m)) for m in schema.modalities}

    def __call__(self, inputs: Mapping[str, Array]) -> None:
        """Raise UnknownModality or SchemaError unless these are raw inputs with the same number of rows.

        inputs: by modality name as `tokens.Batch` describes; images may have any size
        """
        rows = -1
        for name, value in inputs.items():
            count = len(self.value(name, value))
            if count != rows >= 0:
                raise SchemaError(f"every modality must have the same number of rows, got {rows} and {count}")
            rows = count
        if rows < 0:
            raise SchemaError(f"every modality is missing; give at least one of {list(self._forms)}")

    def value(self, name: str, value: Array) -> Array:
        """The raw input of one modality.  value: (batch, …)"""
        if name not in self._forms:
            raise UnknownModality(f"no encoder for {name!r}; this bundle has {list(self._forms)}")
        modality, dtype, shape = self._forms[name]
        if not isinstance(value, np.ndarray) or value.dtype != dtype:
            given = value.dtype if isinstance(value, np.ndarray) else type(value).__name__
            raise SchemaError(f"{name!r} must be a numpy array of {dtype}, got {given}")
        if value.shape[1:] != shape and not _fits(value.shape, shape, any_size=modality.kind == "image"):
            wanted = ", ".join(["batch", *(str(axis or "any") for axis in shape)])
            raise SchemaError(f"{name!r} must have the shape ({wanted}), got {value.shape}")
        if not value.size:
            raise SchemaError(f"{name!r} is empty: its shape is {value.shape}; leave a missing modality out")
        if modality.kind in {"text", "codes"}:
            _check_ids(modality, value)
        elif dtype.kind == "f" and np.count_nonzero(np.isinf(value)):  # half the time of any()
            raise SchemaError(f"{name!r} holds an infinity; numbers must be finite, or NaN where missing")
        return value


def _fits(given: tuple[int, ...], shape: tuple[int, ...], *, any_size: bool) -> bool:
    if any_size:
        shape = (0, 0, shape[2])
    return len(given) == len(shape) + 1 and all(want in {0, have} for have, want in zip(given[1:], shape, strict=True))


def _check_ids(modality: Modality, value: Array) -> None:
    if modality.max_tokens and value.shape[1] > modality.max_tokens:
        raise SchemaError(f"{modality.name!r} has {value.shape[1]} tokens, at most {modality.max_tokens} are read")
    largest = np.maximum.reduce(value.view(np.uint64), axis=None)  # negative ids are the largest of all
    if largest >= (modality.vocabulary or 1 << 63):
        raise SchemaError(
            f"{modality.name!r}: ids must be in [0, {modality.vocabulary}), got [{value.min()}, {value.max()}]"
        )
