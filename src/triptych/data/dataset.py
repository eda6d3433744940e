"""A dataset: a schema and its splits, decoded when a row is asked for."""

from __future__ import annotations

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from triptych.data.feed import Table
from triptych.errors import DataError, SchemaError
from triptych.schema import FILES, Schema

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Split:
    """Some rows of a table, with their targets.

    targets: (rows,) int64 class index (-1 unknown) or float32 value (NaN unknown); for retrieval (rows, 2) int64, what
             query and target show: rows with an equal number on either side are right answers to each other
    ids:     (rows,) str
    groups:  (rows,) str, the person or document that a row belongs to; None where the dataset has none
    dropped: how many rows were left out, by reason
    """

    name: str
    table: Table = field(repr=False)
    schema: Schema = field(repr=False)
    numbers: Array = field(repr=False)  # rows of the table: (rows,) int64
    targets: Array = field(repr=False)
    groups: Array | None = field(default=None, repr=False)
    dropped: Counter[str] = field(default_factory=Counter)

    @property
    def ids(self) -> Array:
        """(rows,) str"""
        return self.table.ids[self.numbers]

    def __len__(self) -> int:
        return len(self.numbers)

    def raw(self, row: int) -> dict[str, object]:
        """Undecoded values by modality name, None where missing."""
        number = self._number(row)
        return {m.name: self.table.feed(m).raw(number) for m in self.schema.modalities}

    def example(self, row: int) -> dict[str, Array | None]:
        """Decoded values by modality name, None where missing.  Raises DataError naming row and column."""
        number = self._number(row)
        return {m.name: self.table.feed(m).decoded(number) for m in self.schema.modalities}

    def target(self, row: int) -> int | float | list[int]:
        """Class index or value of one row; for retrieval its two numbers."""
        self._number(row)
        value: int | float | list[int] = self.targets[row].tolist()
        return value

    def stack(self, rows: Array) -> tuple[dict[str, Array], dict[str, Array]]:
        """Inputs and presence of a batch, as `collate` returns them.  rows: (batch,) int64"""
        numbers = self.numbers[rows]
        inputs, present = {}, {}
        for modality in self.schema.modalities:
            feed = self.table.feed(modality)
            have = feed.present[numbers]
            if have.any():
                inputs[modality.name] = feed.stack(numbers)
            if have.any() and not have.all():
                present[modality.name] = have
        return inputs, present

    def arrays(self) -> dict[str, Array]:
        """Every row of every modality, decoded and padded."""
        return self.stack(np.arange(len(self)))[0]

    def subset(self, rows: Sequence[int] | Array) -> Split:
        """The given rows in the given order; decoded rows stay shared."""
        index = np.asarray(rows, np.int64)
        groups = None if self.groups is None else self.groups[index]
        numbers, targets = self.numbers[index], self.targets[index]
        return dataclasses.replace(self, numbers=numbers, targets=targets, groups=groups, dropped=Counter())

    def with_schema(self, schema: Schema) -> Split:
        """The same rows seen through another schema, such as a model's.  Raises SchemaError if the goals differ."""
        if schema == self.schema:
            return self
        if (schema.task, schema.classes, schema.pair) != (self.schema.task, self.schema.classes, self.schema.pair):
            given, have = (list(s.classes or s.pair) or s.task for s in (schema, self.schema))
            raise SchemaError(f"the schema predicts {given}, the data holds {have}; use the model's own dataset")
        return dataclasses.replace(self, schema=schema)

    def _number(self, row: int) -> int:
        if not 0 <= row < len(self):
            raise DataError(f"{self.name} has rows 0 to {len(self) - 1}, got {row}")
        return int(self.numbers[row])


@dataclass(frozen=True, eq=False)
class Dataset:
    """A schema measured on `train`, and the splits.

    about: licence, source and whatever else dataset.toml says of the whole
    """

    schema: Schema
    splits: Mapping[str, Split]
    about: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def name(self) -> str:
        """Name of the dataset."""
        return self.schema.name

    @property
    def train(self) -> Split:
        """The split to fit on."""
        return self["train"]

    @property
    def validation(self) -> Split:
        """The split to choose on."""
        return self["validation"]

    @property
    def test(self) -> Split:
        """The split to report on, once."""
        return self["test"]

    @property
    def groups(self) -> dict[str, Array]:
        """Groups by split, for the splits that have them."""
        return {name: split.groups for name, split in self.splits.items() if split.groups is not None}

    @cached_property
    def fingerprint(self) -> str:
        """Sha256 over the schema and the content of every split, files outside the tables included."""
        digest = hashlib.sha256(repr(sorted(self.schema.to_dict().items())).encode())
        for name, split in sorted(self.splits.items()):
            digest.update(f"{name} {split.numbers.tolist()}".encode())
            _digest_table(split.table, digest)
            for path in sorted(_outside_files(split)):
                digest.update(path.read_bytes())
        return digest.hexdigest()

    def only(self, *names: str) -> Dataset:
        """The same rows with some of the modalities."""
        schema = self.schema.only(*names)
        splits = {name: split.with_schema(schema) for name, split in self.splits.items()}
        return Dataset(schema, splits, self.about)

    def __getitem__(self, split: str) -> Split:
        if split not in self.splits:
            raise DataError(f"no split {split!r}; this dataset has {sorted(self.splits)}")
        return self.splits[split]


class _Sink:
    """Feeds what arrow writes to a digest."""

    closed = False

    def __init__(self, digest: Any) -> None:
        self._digest = digest

    def write(self, data: Any) -> int:
        self._digest.update(data)
        return len(data)

    def writable(self) -> bool:
        return True

    def flush(self) -> None:
        pass

    def close(self) -> None:
        pass


def _digest_table(table: Table, digest: Any) -> None:
    with pa.PythonFile(_Sink(digest), mode="w") as file, pa.ipc.new_stream(file, table.table.schema) as stream:
        stream.write_table(table.table)


def _outside_files(split: Split) -> set[Path]:
    media = [m for m in split.schema.modalities if m.kind in FILES]
    values = (split.table.feed(m).raw(int(number)) for m in media for number in split.numbers)
    return {value for value in values if isinstance(value, Path) and value.is_file()}
