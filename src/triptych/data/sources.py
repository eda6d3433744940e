"""Where rows come from: files, folders, data frames."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from triptych.data.declare import Declaration, read_declaration
from triptych.data.easyvqa import easy_vqa
from triptych.data.partition import NAMES
from triptych.errors import DataError

_SUFFIXES = (".parquet", ".csv")


@dataclass(frozen=True)
class Source:
    """An opened dataset: tables by name, and the one that holds every split, if one does."""

    declaration: Declaration
    tables: dict[str, pa.Table]
    root: Path
    single: str = ""


@dataclass(frozen=True)
class Goal:
    """What the caller wants instead of what is declared or guessed."""

    target: str | None = None
    task: str | None = None


def open_source(source: object, goal: Goal) -> Source:
    """Open whatever `load_data` accepts.  Raises DataError."""
    if isinstance(source, str) and source == "easy-vqa":
        declaration, tables, root = easy_vqa()
        return Source(declaration, tables, root)
    if not isinstance(source, str | Path):
        table, root = open_rows(source)
        return Source(_infer(table, "frame", goal), {"frame": table}, root, "frame")
    path = Path(source)
    if path.is_dir():
        return _open_folder(path, goal)
    toml = path.parent / "dataset.toml"
    if toml.is_file() and (declared := _declared(toml, goal)).file == path.name:
        return Source(declared, {path.name: read_table(path)}, path.parent, path.name)
    table, root = open_rows(path)
    return Source(_infer(table, path.stem, goal), {path.name: table}, root, path.name)


def open_rows(source: object) -> tuple[pa.Table, Path]:
    """A table and the folder that its paths start from.  Raises DataError."""
    if isinstance(source, str | Path):
        return read_table(Path(source)), Path(source).parent
    if isinstance(source, pa.Table):
        return _plain_columns(source, "the table"), Path()
    if hasattr(source, "to_dict") and hasattr(source, "columns"):
        return _plain_columns(_from_frame(source), "the data frame"), Path()
    raise DataError(f"expected a folder, a CSV or parquet file, or a DataFrame, got {type(source).__name__}")


def read_table(path: Path, columns: Iterable[str] | None = None) -> pa.Table:
    """Read a CSV or parquet file, or those of its columns that are named.  Raises DataError."""
    if not path.is_file():
        raise DataError(f"{str(path)!r} does not exist; give a folder, a CSV or a parquet file, or 'easy-vqa'")
    if path.suffix not in _SUFFIXES:
        raise DataError(f"{path.name!r} has an unknown suffix; expected one of {list(_SUFFIXES)}")
    try:
        if path.suffix == ".csv":
            import pyarrow.csv

            return _plain_columns(pyarrow.csv.read_csv(path), path.name)
        wanted = None if columns is None else [n for n in pq.read_schema(path).names if n in set(columns)]
        return _plain_columns(pq.read_table(path, columns=wanted), path.name)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path.name} is not a readable {path.suffix[1:]} file: {error}; write it anew") from error


def folder_tables(folder: Path, columns: Iterable[str] | None = None) -> dict[str, pa.Table]:
    """Tables by split, of parquet or CSV files or of a folder that `datasets` saved.  Raises DataError."""
    if (folder / "dataset_dict.json").is_file():
        names = json.loads((folder / "dataset_dict.json").read_text(encoding="utf-8"))["splits"]
        return {str(name): read_saved(folder / str(name)) for name in names}
    if (folder / "state.json").is_file():
        return {folder.name: read_saved(folder)}
    found = {n: folder / f"{n}{s}" for n in NAMES for s in reversed(_SUFFIXES) if (folder / f"{n}{s}").is_file()}
    if not found:
        raise DataError(f"{str(folder)!r} holds no train.parquet or train.csv; see `triptych init`")
    return {name: read_table(path, columns) for name, path in found.items()}


def read_saved(folder: Path) -> pa.Table:
    """Read one split that Hugging Face `datasets` saved; class labels become their names.  Raises DataError."""
    try:
        files = [entry["filename"] for entry in json.loads((folder / "state.json").read_text("utf-8"))["_data_files"]]
        features = json.loads((folder / "dataset_info.json").read_text("utf-8"))["features"]
        tables = [_read_stream(folder / Path(file).name) for file in files]
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
        raise DataError(f"{folder.name!r} is not a folder that save_to_disk wrote: {error}; save it anew") from error
    table = pa.concat_tables(tables).replace_schema_metadata(None)
    for name, feature in features.items():
        if isinstance(feature, dict) and feature.get("_type") == "ClassLabel":
            labels = pa.array(
                [feature["names"][i] if i is not None and i >= 0 else None for i in table[name].to_pylist()]
            )
            table = table.set_column(table.column_names.index(name), name, labels)
    return table


def _class_names(numbers: pa.ChunkedArray, names: list[str]) -> pa.Array:
    known = (i is not None and i >= 0 for i in numbers.to_pylist())
    return pa.array([names[i] if ok else None for i, ok in zip(numbers.to_pylist(), known, strict=True)], pa.string())


def _read_stream(path: Path) -> pa.Table:
    with pa.memory_map(str(path)) as source:
        return pa.ipc.open_stream(source).read_all()


def _open_folder(folder: Path, goal: Goal) -> Source:
    toml = folder / "dataset.toml"
    if not toml.is_file():
        tables = folder_tables(folder)
        single = next(iter(tables)) if "train" not in tables and len(tables) == 1 else ""
        first = tables.get("train", next(iter(tables.values())))
        return Source(_infer(first, folder.name, goal), tables, folder, single)
    declared = _declared(toml, goal)
    if declared.file:
        name = Path(declared.file).name
        return Source(declared, {name: read_table(folder / name)}, folder, name)
    tables = folder_tables(folder, _needed(declared))
    single = next(iter(tables)) if "train" not in tables and len(tables) == 1 else ""
    return Source(declared, tables, folder, single)


def _needed(declared: Declaration) -> set[str]:
    inline = {field for m in declared.modalities if m.kind == "table" for field in m.fields}
    columns = {m.column for m in declared.modalities} | inline
    return columns | {"id", declared.target, declared.group, str(declared.partition.get("column", ""))}


def _plain_columns(table: pa.Table, name: str) -> pa.Table:
    """Give categories their values.  Raises DataError on two columns of one name."""
    names = table.column_names
    if twice := sorted({column for column in names if names.count(column) > 1}):
        raise DataError(f"{name} has several columns named {twice}; rename all but one")
    for number, column in enumerate(table.schema):
        if pa.types.is_dictionary(column.type):
            table = table.set_column(number, column.name, table[number].cast(column.type.value_type))
    return table


def _from_frame(frame: Any) -> pa.Table:
    try:
        listed = {
            name: frame[name].map(_plain) if frame[name].dtype == object else frame[name] for name in frame.columns
        }
        return pa.Table.from_pandas(type(frame)(listed), preserve_index=False).replace_schema_metadata(None)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise DataError(f"the data frame has a column of mixed types: {error}; give each column one type") from error


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    return value.tolist() if hasattr(value, "tolist") else value


def _declared(toml: Path, goal: Goal) -> Declaration:
    return read_declaration(toml, target=goal.target, task=goal.task)


def _infer(table: pa.Table, name: str, goal: Goal) -> Declaration:
    from triptych.data.infer import infer_schema

    return infer_schema(table, name=name, target=goal.target, task=goal.task)[0]
