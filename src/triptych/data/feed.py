"""One modality of one file: undecoded values, presence, and decoded rows kept in one contiguous array."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from triptych.data.collate import blank, conform, length, stack
from triptych.data.decode import DEFAULT_LIMITS, decode, is_missing
from triptych.data.limits import Limits
from triptych.errors import DataError
from triptych.schema import FILES, Modality

Array = NDArray[Any]


@dataclass
class Memory:
    """How many bytes of decoded rows may still be kept."""

    free_bytes: int


class Table:
    """The rows of one file: an arrow table, the folder that its paths start from, and who each row is."""

    def __init__(
        self,
        name: str,
        table: pa.Table,
        *,
        root: Path,
        limits: Limits = DEFAULT_LIMITS,
        memory: Memory | None = None,
        feeds: Mapping[Modality, Feed] | None = None,
    ) -> None:
        self.name, self.table, self.root, self.limits = name, table, root, limits
        self.memory = memory or Memory(0)
        self.ids = _ids(table)
        self._feeds: dict[Modality, Feed] = dict(feeds or {})
        self._present: dict[str, Array] = {}

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def where(self, row: int, column: str) -> str:
        """Name a value for an error message."""
        return f"{self.name} row {row} (id {str(self.ids[row])!r}), column {column!r}"

    def present(self, columns: list[str]) -> Array:
        """Which rows hold a value in any of the columns: (rows,) bool."""
        for name in columns:
            if name not in self._present:
                self._present[name] = _column_present(self.table[name])
        present: Array = np.logical_or.reduce([self._present[name] for name in columns])
        return present

    def feed(self, modality: Modality) -> Feed:
        """The reader of one modality; the same modality gives the same reader."""
        if modality not in self._feeds:
            self._feeds[modality] = Feed(self, modality, memory=self.memory)
        return self._feeds[modality]

    def providing(self, modality: Modality, values: Array) -> Table:
        """The same rows with one modality's values at hand; what was decoded of the others stays shared.

        modality: a series or codes
        values:   of every row, as `Batch` has them; part of the table's content from then on
        """
        wanted = (len(self), *_full_shape(modality))
        if modality.kind not in ("series", "codes") or values.shape != wanted:
            raise DataError(
                f"values at hand are those of a series or codes, here of shape {wanted}; {modality.name!r} is"
                f" {modality.kind} and got {values.shape}"
            )
        digest = hashlib.sha256(np.ascontiguousarray(values).reshape(-1).data).hexdigest()
        notes = {**(self.table.schema.metadata or {}), f"triptych.{modality.name}".encode(): digest.encode()}
        noted = self.table.replace_schema_metadata(notes)
        feeds = {**self._feeds, modality: Feed(self, modality, values=values)}
        return Table(self.name, noted, root=self.root, limits=self.limits, memory=self.memory, feeds=feeds)


class Feed:
    """Reads one modality of a table."""

    def __init__(
        self, table: Table, modality: Modality, *, memory: Memory | None = None, values: Array | None = None
    ) -> None:
        self.table, self.modality, self._values = table, modality, values
        columns = columns_of(modality, table.table.column_names)
        self._columns = [table.table[name] for name in columns]
        self.present = table.present(columns)
        self._item, items = self._unique_items()
        shape = _full_shape(modality)
        dtype = blank(modality, 0, 0).dtype
        need = items * math.prod(shape) * dtype.itemsize
        self._store: Array | None = None
        if memory and 0 < need <= memory.free_bytes:
            memory.free_bytes -= need
            self._store = np.empty((items, *shape), dtype)
            self._stored = np.zeros(items, bool)
        if values is not None:
            self._store, self._stored = values, np.ones(items, bool)

    def raw(self, row: int) -> object:
        """The undecoded value, None where missing; a relative media path is joined to the dataset's folder."""
        if not self.present[row]:
            return None
        if self._values is not None:
            return self._values[row]
        if len(self._columns) > 1 or self._is_inline:
            return np.array([_number(column[row].as_py()) for column in self._columns], np.float32)
        value = _value(self._columns[0][row])
        if self.modality.kind in FILES:
            return self._located(value)
        return value

    def decoded(self, row: int) -> Array | None:
        """The decoded value at the schema's size, None where missing.  Raises DataError naming row and column."""
        if not self.present[row]:
            return None
        try:
            return conform(self.modality, decode(self.modality, self.raw(row), self.table.limits))
        except DataError as error:
            raise type(error)(f"{self.table.where(row, self.modality.column)}: {error}") from error

    def stack(self, rows: Array) -> Array:
        """Decode and pad rows, from memory where they are known.  rows: (batch,) int64 → (batch, …)"""
        if self._store is None:
            return stack(self.modality, [self.decoded(int(row)) for row in rows])
        unknown = rows[~self._stored[self._item[rows]]]
        for first in np.unique(self._item[unknown], return_index=True)[1]:
            self._keep(int(unknown[first]))
        batch = self._store[self._item[rows]]
        return _trim(batch) if self.modality.kind == "text" else batch

    def knows(self, rows: Array) -> bool:
        """True if every row can be served from memory."""
        return self._store is not None and bool(self._stored[self._item[rows]].all())

    def remember(self, rows: Array, batch: Array) -> None:
        """Keep rows that a worker decoded.  batch: (batch, …)"""
        if self._store is None:
            return
        items = self._item[rows]
        if self.modality.kind == "text":
            self._store[items] = 0
            self._store[items, : batch.shape[1]] = batch
        else:
            self._store[items] = batch
        self._stored[items] = True

    def _keep(self, row: int) -> None:
        value = self.decoded(row)
        if value is None:
            shape = _full_shape(self.modality)
            self.remember(np.array([row]), blank(self.modality, 1, shape[0], shape[1:]))
        else:
            self.remember(np.array([row]), stack(self.modality, [value]))

    @property
    def _is_inline(self) -> bool:
        return self.modality.kind == "table" and self.modality.column not in self.table.table.column_names

    def _located(self, value: object) -> object:
        if isinstance(value, Mapping) and value.get("bytes") is None:
            value = value.get("path")
        if isinstance(value, str) and "://" not in value:
            return self.table.root / value
        return value

    def _unique_items(self) -> tuple[Array, int]:
        """Which decoded item each row uses: rows with the same path or the same text share one, if they are decoded."""
        column = self._columns[0]
        if self._values is not None or self.modality.kind not in {*FILES, "text"} or not _is_string(column.type):
            return np.arange(len(self.table)), len(self.table)
        codes = pc.dictionary_encode(column, null_encoding="encode").combine_chunks()
        return codes.indices.to_numpy(zero_copy_only=False), len(codes.dictionary)


def _ids(table: pa.Table) -> Array:
    """(rows,) str; a row without an id gets its number."""
    known = table["id"].to_pylist() if "id" in table.column_names else [None] * table.num_rows
    return np.array([str(number) if name is None else str(name) for number, name in enumerate(known)], np.str_)


def columns_of(modality: Modality, available: list[str]) -> list[str]:
    """The column of a modality, or the columns of a table whose fields are spread over columns."""
    if modality.column in available:
        return [modality.column]
    if modality.kind == "table" and modality.fields and set(modality.fields) <= set(available):
        return list(modality.fields)
    raise DataError(
        f"column {modality.column!r} of modality {modality.name!r} is missing; the table has {available}; "
        "correct 'column' in dataset.toml, or add an empty column if every row lacks it"
    )


def _full_shape(modality: Modality) -> tuple[int, ...]:
    match modality.kind:
        case "image":
            return modality.height, modality.width, modality.channels
        case "video":
            return modality.frames, modality.height, modality.width, modality.channels
        case "series" | "points" | "codes":
            return length(modality), modality.channels
        case _:
            return (length(modality),)


def _trim(tokens: Array) -> Array:
    used = np.flatnonzero(tokens.any(axis=0))
    return tokens[:, : used[-1] + 1 if len(used) else 1]


def _is_string(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _value(scalar: Any) -> object:
    """A python or numpy value; numbers in lists become one array without a python object per number."""
    kind = scalar.type
    if not scalar.is_valid:
        return None
    if pa.types.is_large_list(kind) or pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind):
        return _numbers(scalar.values)
    return scalar.as_py()


def _numbers(array: pa.Array) -> object:
    if pa.types.is_list(array.type) or pa.types.is_large_list(array.type):
        widths = pc.list_value_length(array).to_numpy(zero_copy_only=False)
        flat = array.flatten()
        if array.null_count or len(set(widths.tolist())) != 1 or _is_nested(flat):
            return array.to_pylist()
        return flat.to_numpy(zero_copy_only=False).reshape(len(array), -1)
    if _is_nested(array):
        return array.to_pylist()
    return array.to_numpy(zero_copy_only=False)


def _is_nested(array: pa.Array) -> bool:
    return bool(pa.types.is_nested(array.type))


def _number(value: object) -> float:
    return float(value) if isinstance(value, bool | int | float) else math.nan


def _column_present(column: pa.ChunkedArray) -> Array:
    kind = column.type
    if _is_string(kind):
        filled = pc.not_equal(pc.utf8_trim_whitespace(column), "")
    elif pa.types.is_struct(kind):
        names = [kind.field(i).name for i in range(kind.num_fields)]
        parts = [pc.is_valid(pc.struct_field(column, name)) for name in names if name in {"bytes", "path", "array"}]
        filled = parts[0] if parts else pc.is_valid(column)
        for part in parts[1:]:
            filled = pc.or_(filled, part)
    elif pa.types.is_floating(kind):
        filled = pc.invert(pc.is_nan(column))
    elif pa.types.is_nested(kind):
        return np.array([not is_missing(_value(scalar)) for scalar in column])
    else:
        filled = pc.is_valid(column)
    return np.asarray(pc.fill_null(filled, fill_value=False).to_numpy(), bool)
