"""Reading a dataset: folders, files, data frames and the built-in demonstration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from triptych.data.checks import (
    OnBad,
    Sieve,
    check_duplicates,
    check_presence,
    check_values,
    label_texts,
    no_targets,
    read_targets,
)
from triptych.data.dataset import Dataset, Split
from triptych.data.declare import Declaration
from triptych.data.feed import Memory, Table, columns_of
from triptych.data.limits import Limits
from triptych.data.measured import measure_modality, target_scale
from triptych.data.partition import NAMES, by_column, by_share
from triptych.data.sources import Goal, Source, open_rows, open_source
from triptych.errors import DataError
from triptych.schema import Modality, Schema, Task

Array = NDArray[Any]
DEFAULT_LIMITS = Limits()
DEFAULT_SHARES = (0.8, 0.1, 0.1)
_VALIDATION_SHARE = 0.1


def load_data(
    source: object,
    *,
    target: str | None = None,
    task: Task | None = None,
    pair: Sequence[str] | None = None,
    on_bad: OnBad = "error",
    limits: Limits = DEFAULT_LIMITS,
    split: str | Sequence[float] | None = None,
    seed: int = 0,
    cache_bytes: int = 1 << 30,
) -> Dataset:
    """Read a dataset; media stay undecoded until a row is asked for.

    source: a folder with dataset.toml and parquet splits, a CSV or parquet file, a pandas DataFrame, a folder that
            Hugging Face `datasets` saved, or 'easy-vqa'
    target: another target than the declared one, or the target column where nothing is declared
    task:   'retrieval' finds one modality by the other in place of predicting a target, whatever is declared
    pair:   names of the query's and the target's modality for retrieval; the other modalities are left out
    on_bad: 'error' raises DataError about the first bad row (a damaged medium: when it is decoded);
            'drop' decodes every row once, leaves the bad ones out and counts them in `split.dropped`
    split:  for a single file, the column that names the split, or the shares of train, validation and test
    seed:   for dividing rows into splits
    cache_bytes: how much memory decoded rows may take
    Raises DataError.
    """
    if on_bad not in get_args(OnBad):
        raise DataError(f"on_bad must be one of {get_args(OnBad)}, got {on_bad!r}")
    if pair is not None and task not in {None, "retrieval"}:
        raise DataError(f"only retrieval has a pair, got pair={list(pair)} for {task}; leave one of them out")
    task = "retrieval" if pair is not None else task
    opened = open_source(source, Goal(target, task))
    if "retrieval" in {task, opened.declaration.task}:
        opened = replace(opened, declaration=opened.declaration.paired(pair))
    memory = Memory(cache_bytes)
    tables = {n: Table(n, t, root=opened.root, limits=limits, memory=memory) for n, t in opened.tables.items()}
    _check_columns(opened.declaration, tables)
    sieves = {name: Sieve(table, on_bad) for name, table in tables.items()}
    targets = _check_rows(opened.declaration, sieves)
    parts = _parts(opened, tables, split, seed)
    return _assemble(opened.declaration, sieves, targets, parts)


def load_rows(source: object, schema: Schema, *, limits: Limits = DEFAULT_LIMITS, name: str = "rows") -> Split:
    """Read rows to predict on, which need no target: -1 or NaN where there is none.

    source: a CSV or parquet file, or a pandas DataFrame
    Raises DataError.
    """
    opened, root = open_rows(source)
    table = Table(name, opened, root=root, limits=limits)
    sieve = Sieve(table, "error")
    check_presence(sieve, schema.modalities)
    known = schema.target in opened.column_names
    targets = read_targets(sieve, schema) if known else no_targets(table, schema)
    return Split(name, table, schema, np.arange(len(table)), targets)


def _check_columns(declaration: Declaration, tables: dict[str, Table]) -> None:
    for table in tables.values():
        available = table.table.column_names
        try:
            for modality in declaration.modalities:
                columns_of(modality, available)
        except DataError as error:
            raise DataError(f"{table.name}: {error}") from error
        if declaration.group and declaration.group not in available:
            raise DataError(
                f"{table.name}: the group column {declaration.group!r} is missing; the table has {available}"
            )


def _check_rows(declaration: Declaration, sieves: dict[str, Sieve]) -> dict[str, Array]:
    """Check what needs no decoding; returns targets by table."""
    check_duplicates(sieves.values())
    targets = {name: read_targets(sieve, declaration) for name, sieve in sieves.items()}
    for sieve in sieves.values():
        check_presence(sieve, declaration.modalities)
        for modality in declaration.modalities:
            check_values(sieve, modality)
    return targets


def _parts(
    opened: Source, tables: dict[str, Table], split: str | Sequence[float] | None, seed: int
) -> dict[str, tuple[str, Array]]:
    """Table name and rows by split."""
    if opened.single:
        return {name: (opened.single, rows) for name, rows in _divide(opened, tables, split, seed).items()}
    if split is not None:
        raise DataError(f"the dataset has its own splits {sorted(tables)}; leave the option 'split' out")
    parts = {name: (name, np.arange(len(table))) for name, table in tables.items()}
    if "train" not in parts:
        raise DataError(f"a dataset needs a train split, found {sorted(parts)}; name one file train.parquet")
    if "validation" not in parts:
        shares = (1 - _VALIDATION_SHARE, _VALIDATION_SHARE, 0.0)
        carved = by_share(*_units(opened.declaration, tables["train"]), shares, seed)
        parts |= {name: ("train", rows) for name, rows in carved.items()}
    return {name: parts[name] for name in NAMES if name in parts}


def _divide(
    opened: Source, tables: dict[str, Table], split: str | Sequence[float] | None, seed: int
) -> dict[str, Array]:
    table, partition = tables[opened.single], opened.declaration.partition
    if split is None:
        split = partition.get("column") or partition.get("shares") or DEFAULT_SHARES
    if isinstance(split, str):
        if split not in table.table.column_names:
            raise DataError(f"the split column {split!r} is missing; the table has {table.table.column_names}")
        return by_column(table.table[split].to_pylist(), split)
    return by_share(*_units(opened.declaration, table), split, int(partition.get("seed", seed)))


def _units(declaration: Declaration, table: Table) -> tuple[list[object], list[object]]:
    """What must stay together, and what to spread evenly: groups if there are any, else rows by class."""
    if declaration.group:
        units = table.table[declaration.group].to_pylist()
        return units, [""] * len(units)
    labels = label_texts(table.table[declaration.target]) if declaration.classes else [""] * len(table)
    return list(range(len(table))), [str(label) for label in labels]


def _assemble(
    declaration: Declaration,
    sieves: dict[str, Sieve],
    targets: dict[str, Array],
    parts: dict[str, tuple[str, Array]],
) -> Dataset:
    train_table, train_rows = parts["train"]
    sieve = sieves[train_table]
    train_rows = _kept("train", sieve, train_rows)
    modalities = tuple(measure_modality(m, sieve.table, train_rows) for m in declaration.modalities)
    for before, after in zip(declaration.modalities, modalities, strict=True):
        if _form(before) != _form(after):
            for other in sieves.values():
                check_values(other, after)
    regression = declaration.task == "regression"
    center, scale = target_scale(targets[train_table][train_rows]) if regression else (0.0, 1.0)
    schema = declaration.schema(modalities, center=center, scale=scale)
    splits = {}
    for name, (table, rows) in parts.items():
        kept = _kept(name, sieves[table], rows)
        groups = _groups(declaration, sieves[table].table, kept)
        dropped = sieves[table].dropped(rows)
        splits[name] = Split(name, sieves[table].table, schema, kept, targets[table][kept], groups, dropped)
    return Dataset(schema, splits, declaration.about)


def _form(modality: Modality) -> tuple[object, ...]:
    """What decides whether a value can be decoded at all."""
    tokenizer = bool(modality.tokenizer)
    return modality.sample_rate, modality.channels, len(modality.fields), tokenizer


def _kept(name: str, sieve: Sieve, rows: Array) -> Array:
    kept = rows[sieve.keep[rows]]
    if not len(kept):
        lost = dict(sieve.dropped(rows))
        raise DataError(f"split {name!r} is empty" + (f" after dropping {lost}" if lost else "") + "; add rows to it")
    return kept


def _groups(declaration: Declaration, table: Table, rows: Array) -> Array | None:
    if not declaration.group:
        return None
    return np.array([str(group) for group in table.table[declaration.group].to_pylist()], np.str_)[rows]
