"""Guess a declaration from a table, for the user to correct."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from triptych.data.checks import label_texts
from triptych.data.declare import Declaration, write_declaration
from triptych.data.header import media_kind
from triptych.data.sources import folder_tables, open_rows
from triptych.errors import DataError
from triptych.schema import METRICS, Kind, Modality

_TARGETS = ("target", "label", "labels", "class", "answer", "score", "y")
_NOT_INPUTS = ("id", "split")
_SUFFIXES: dict[str, Kind] = {
    **dict.fromkeys((".png", ".jpg", ".jpeg", ".webp"), "image"),
    **dict.fromkeys((".wav", ".flac", ".ogg"), "audio"),
}
_MOST_CLASSES = 1000
_MOST_WHOLE_NUMBERS = 50  # more distinct whole numbers than this are values, not classes
_LOOKED_AT = 200


def infer_schema(
    table: pa.Table, *, name: str, target: str | None = None, task: str | None = None
) -> tuple[Declaration, tuple[str, ...]]:
    """Guess the target and the modalities of a table; for retrieval, which has no target, the modalities.

    Media columns (bytes, or paths with a known suffix) become images and clips; strings become text where most values
    hold several words; lists become series or tables; all single numbers together become one table.
    Returns the declaration, and a note for every guess that deserves a look.  Raises DataError.
    """
    column = None if task == "retrieval" and target is None else _target(table, target)
    notes: list[str] = []
    modalities: list[Modality] = []
    numbers: list[str] = []
    for other in table.column_names:
        if other == column or other in _NOT_INPUTS:
            continue
        kind = _kind(table[other])
        if kind == "number":
            numbers.append(other)
        elif kind is None:
            notes.append(f"left out: column {other!r} ({table[other].type}), which is no input as it stands")
        else:
            modalities.append(_modality(other, kind, [m.name for m in modalities]))
    if numbers:
        modalities.append(_modality("table", "table", [m.name for m in modalities], fields=tuple(numbers)))
    if not modalities:
        raise DataError(f"no column of {table.column_names} is an image, a clip, text or numbers; write dataset.toml")
    if column is None:
        metric = METRICS["retrieval"][0]
        return Declaration(name.strip() or "dataset", "retrieval", metric, "", tuple(modalities)), tuple(notes)
    declaration = _with_target(table, name, column, tuple(modalities))
    if task not in {None, declaration.task}:
        raise DataError(
            f"the target {column!r} reads as {declaration.task}, not as {task!r}; declare it in dataset.toml"
        )
    notes.append(f"the target {column!r} is read as {declaration.task}; correct 'task' and 'metric' if it is not")
    return declaration, tuple(notes)


def write_dataset_toml(
    source: str | Path, *, target: str | None = None, task: str | None = None, pair: Sequence[str] | None = None
) -> tuple[Path, tuple[str, ...]]:
    """Write the guessed dataset.toml beside a CSV or parquet file, or into a folder of splits.

    task: 'retrieval' asks for no target; pair: its query's and its target's modality
    Returns its path, and the notes that it starts with.  Raises DataError if there is one already.
    """
    path = Path(source)
    if path.is_dir():
        tables = folder_tables(path)
        table, file, folder = tables.get("train", next(iter(tables.values()))), "", path
    else:
        table, file, folder = open_rows(path)[0], path.name, path.parent
    declaration, notes = infer_schema(table, name=path.stem, target=target, task=task)
    if declaration.task == "retrieval":
        declaration = declaration.paired(pair)
    out = folder / "dataset.toml"
    write_declaration(declaration, out, file=file, notes=("guessed by triptych init: check every line", *notes))
    return out, notes


def _target(table: pa.Table, target: str | None) -> str:
    if target is None:
        by_lower = {column.lower(): column for column in reversed(table.column_names)}
        target = next((by_lower[name] for name in _TARGETS if name in by_lower), None)
        if target is None:
            raise DataError(
                f"no column of {table.column_names} is named like a target; name it with target=, or read the data "
                "for retrieval, which needs none, with task='retrieval'"
            )
    if target not in table.column_names:
        raise DataError(f"the target column {target!r} is missing; the table has {table.column_names}")
    return target


def _with_target(table: pa.Table, name: str, column: str, modalities: tuple[Modality, ...]) -> Declaration:
    values = table[column]
    title = name if name.strip() else "dataset"
    if _is_continuous(values):
        known = pc.min_max(pc.drop_null(pc.cast(values, pa.float64()))).as_py()
        bounds = None if known["min"] is None else (float(known["min"]), float(known["max"]))
        return Declaration(title, "regression", "mae", column, modalities, range=bounds)
    classes = sorted({label for label in label_texts(values) if label is not None}, key=_natural)
    if not 2 <= len(classes) <= _MOST_CLASSES:
        raise DataError(f"target {column!r} has {len(classes)} classes, expected 2 to {_MOST_CLASSES}; choose another")
    return Declaration(title, "classification", "accuracy", column, modalities, classes=tuple(classes))


def _is_continuous(values: pa.ChunkedArray) -> bool:
    if pa.types.is_integer(values.type):
        return int(pc.count_distinct(values).as_py()) > _MOST_WHOLE_NUMBERS
    if not (pa.types.is_floating(values.type) or pa.types.is_decimal(values.type)):
        return False
    known = [value for value in values.to_pylist() if value is not None and value == value]  # noqa: PLR0124
    whole = all(float(value).is_integer() for value in known)
    return not whole or len(set(known)) > _MOST_WHOLE_NUMBERS


def _natural(label: str) -> tuple[float, str]:
    """Numbers by value, then words by letters."""
    try:
        return float(label), label
    except ValueError:
        return float("inf"), label


def _modality(column: str, kind: Kind, taken: list[str], fields: tuple[str, ...] = ()) -> Modality:
    name = re.sub(r"\W", "_", column)
    name = name if name.isidentifier() else f"m_{name}"
    while name in taken:
        name += "_"
    return Modality(name=name, kind=kind, column=name if fields else column, fields=fields)


def _kind(values: pa.ChunkedArray) -> Kind | Literal["number"] | None:
    """A modality kind, 'number', or None for what is no input."""
    form = values.type
    if pa.types.is_boolean(form) or pa.types.is_integer(form) or pa.types.is_floating(form):
        return "number"
    if pa.types.is_list(form) or pa.types.is_large_list(form) or pa.types.is_fixed_size_list(form):
        return _list_kind(values)
    some = pc.drop_null(values).slice(0, _LOOKED_AT).to_pylist()
    if pa.types.is_struct(form):
        return _media_struct_kind(some)
    if pa.types.is_binary(form) or pa.types.is_large_binary(form):
        return media_kind(some[0]) if some else None
    return _string_kind(some) if pa.types.is_string(form) or pa.types.is_large_string(form) else None


def _media_struct_kind(some: list[dict[str, object]]) -> Kind | None:
    for value in some:
        if isinstance(data := value.get("bytes"), bytes):
            return media_kind(data)
        if path := value.get("path"):
            return _SUFFIXES.get(Path(str(path)).suffix.lower())
    return None


def _string_kind(some: list[str]) -> Kind | None:
    filled = [value for value in some if value.strip()]
    if not filled:
        return None
    suffix, times = Counter(Path(value).suffix.lower() for value in filled).most_common(1)[0]
    if suffix in _SUFFIXES and times * 2 > len(filled):
        return _SUFFIXES[suffix]
    return "text" if sum(len(value.split()) > 1 for value in filled) * 2 > len(filled) else None


def _list_kind(values: pa.ChunkedArray) -> Kind | None:
    inner = values.type.value_type
    if pa.types.is_nested(inner):
        deeper = inner.value_type if hasattr(inner, "value_type") else None
        return "series" if deeper is not None and _is_number(deeper) else None
    lengths = pc.count_distinct(pc.drop_null(pc.list_value_length(values))).as_py()
    return ("table" if lengths <= 1 else "series") if _is_number(inner) else None


def _is_number(form: pa.DataType) -> bool:
    return bool(pa.types.is_integer(form) or pa.types.is_floating(form))
