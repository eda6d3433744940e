"""Finding bad rows: each is one clear error, or is dropped and counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from triptych.data.declare import Declaration
from triptych.data.decode import decode
from triptych.data.feed import Feed, Table
from triptych.data.pairs import pair_numbers
from triptych.errors import DataError
from triptych.schema import Modality, Schema, Task

Array = NDArray[Any]
OnBad = Literal["error", "drop"]
_SHOWN = 12


class Sieve:
    """The rows of a table that are still good."""

    def __init__(self, table: Table, on_bad: OnBad) -> None:
        self.table, self.on_bad = table, on_bad
        self.keep = np.ones(len(table), bool)
        self.reasons: dict[int, str] = {}

    def reject(self, bad: Array, reason: str, column: str, explain: Callable[[int], str]) -> None:
        """Raise DataError about the first bad row, or drop them all.  bad: (rows,) bool"""
        rows = np.flatnonzero(bad & self.keep)
        if not len(rows):
            return
        if self.on_bad == "error":
            more = f"; rows like it: {len(rows)}" if len(rows) > 1 else ""
            where, why = self.table.where(rows[0], column), explain(int(rows[0]))
            raise DataError(f"{where}: {why}, or leave such rows out with on_bad='drop'{more}")
        self.keep[rows] = False
        self.reasons.update(dict.fromkeys(rows.tolist(), reason))

    def dropped(self, rows: Array) -> Counter[str]:
        """How many of the given rows were dropped, by reason."""
        return Counter(self.reasons[row] for row in rows.tolist() if row in self.reasons)


def check_duplicates(sieves: Iterable[Sieve]) -> None:
    """Reject a row whose id was seen before, in any split."""
    seen: dict[str, str] = {}
    for sieve in sieves:
        if "id" not in sieve.table.table.column_names:
            continue
        ids = sieve.table.ids.tolist()
        bad = np.zeros(len(ids), bool)
        for row, name in enumerate(ids):
            bad[row] = name in seen
            seen.setdefault(name, f"{sieve.table.name} row {row}")
        sieve.reject(bad, "duplicate id", "id", partial(_explain_duplicate, ids, seen))


def _explain_duplicate(ids: list[str], seen: dict[str, str], row: int) -> str:
    return f"{seen[ids[row]]} has the same id; make ids unique"


def read_targets(sieve: Sieve, goal: Declaration | Schema) -> Array:
    """Targets as `Split.targets` has them; rows without a good one are rejected."""
    return _TARGETS[goal.task](sieve, goal)


def no_targets(table: Table, goal: Schema) -> Array:
    """Targets of rows to predict on: unknown, but for retrieval, which asks for none."""
    match goal.task:
        case "classification":
            return np.full(len(table), -1, np.int64)
        case "regression":
            return np.full(len(table), np.nan, np.float32)
        case "retrieval":
            return pair_numbers(table, [goal[name] for name in goal.pair])


def check_presence(sieve: Sieve, modalities: Iterable[Modality]) -> None:
    """Reject rows whose every modality is missing."""
    modalities = tuple(modalities)
    present = np.logical_or.reduce([Feed(sieve.table, m).present for m in modalities])
    columns = ", ".join(m.column for m in modalities)
    sieve.reject(~present, "no modality", columns, lambda _: "every modality is missing; fill in at least one")


def check_values(sieve: Sieve, modality: Modality) -> None:
    """Decode every row once and drop those that fail; does nothing where errors are wanted, they come on access."""
    if sieve.on_bad == "error" or (modality.kind == "text" and not modality.tokenizer):
        return
    feed = Feed(sieve.table, modality)
    bad = np.array([keep and _fails(feed, row) for row, keep in enumerate(sieve.keep.tolist())], bool)
    sieve.reject(bad, f"bad {modality.name}", modality.column, lambda _: "the value cannot be decoded")


def label_texts(values: pa.ChunkedArray) -> list[str | None]:
    """Class names as text: 3.0 becomes '3', true becomes 'true', NaN and blanks become None."""
    if pa.types.is_floating(values.type):
        return [None if v is None or v != v else f"{v:g}" for v in values.to_pylist()]  # noqa: PLR0124
    try:
        texts = pc.cast(values, pa.string()).to_pylist()
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise DataError(f"a target of classes must hold text or numbers, got {values.type}; convert it") from error
    return [text if text and text.strip() else None for text in texts]


def _fails(feed: Feed, row: int) -> bool:
    if not feed.present[row]:
        return False
    try:
        decode(feed.modality, feed.raw(row), feed.table.limits)
    except DataError:
        return True
    return False


def _column(sieve: Sieve, column: str) -> pa.ChunkedArray:
    available = sieve.table.table.column_names
    if column not in available:
        raise DataError(f"{sieve.table.name}: the target column {column!r} is missing; the table has {available}")
    return sieve.table.table[column]


def _class_targets(sieve: Sieve, goal: Declaration | Schema) -> Array:
    values, classes, column = _column(sieve, goal.target), goal.classes, goal.target
    index = {name: number for number, name in enumerate(classes)}
    texts = label_texts(values)
    _reject_missing(sieve, np.array([text is None for text in texts], bool), column)
    targets = np.array([-1 if text is None else index.get(text, -1) for text in texts], np.int64)
    known = list(classes[:_SHOWN]) + (["…"] if len(classes) > _SHOWN else [])
    sieve.reject(
        targets < 0,
        "unknown class",
        column,
        lambda row: f"class {texts[row]!r} is not one of {known}; correct it or add it to 'classes' in dataset.toml",
    )
    return targets


def _values(sieve: Sieve, goal: Declaration | Schema) -> Array:
    values, column = _column(sieve, goal.target), goal.target
    try:
        targets: Array = pc.cast(values, pa.float64()).to_numpy().astype(np.float32)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise DataError(
            f"{sieve.table.name}, column {column!r}: a regression target must be numbers ({error})"
        ) from error
    _reject_missing(sieve, np.isnan(targets), column)
    sieve.reject(np.isinf(targets), "infinite target", column, lambda _: "the target is infinite; correct it")
    return targets


def _pairs(sieve: Sieve, goal: Declaration | Schema) -> Array:
    sides = {modality.name: modality for modality in goal.modalities}
    numbers = pair_numbers(sieve.table, [sides[name] for name in goal.pair])
    columns = ", ".join(sides[name].column for name in goal.pair)
    sieve.reject(np.any(numbers < 0, axis=1), "half a pair", columns, lambda _: "a side of the pair is missing")
    return numbers


def _reject_missing(sieve: Sieve, missing: Array, column: str) -> None:
    sieve.reject(missing, "missing target", column, lambda _: "the target is missing or NaN; fill it in")


_TARGETS: dict[Task, Callable[[Sieve, Declaration | Schema], Array]] = {
    "classification": _class_targets,
    "regression": _values,
    "retrieval": _pairs,
}
