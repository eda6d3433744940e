"""Decoded examples on disk, as workers read them: one `<row>.<modality>.npy` per input, absent if it is missing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Inputs = dict[str, NDArray[Any]]


def write_examples(folder: Path, rows: Iterable[Mapping[str, NDArray[Any]]]) -> int:
    """Replace the folder's content.  Arrays have a batch axis of one.  Returns the number of rows."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    number = 0
    for row, inputs in enumerate(rows):
        for name, value in inputs.items():
            np.save(folder / f"{row}.{name}.npy", value, allow_pickle=False)
        number = row + 1
    return number


def read_example(folder: Path, row: int, names: Iterable[str]) -> Inputs:
    """One example, of the named modalities those that it has."""
    paths = {name: folder / f"{row}.{name}.npy" for name in names}
    return {name: np.load(path, allow_pickle=False) for name, path in paths.items() if path.exists()}


def groups(folder: Path, rows: int, names: tuple[str, ...], size: int) -> Iterator[tuple[list[int], Inputs]]:
    """Examples stacked into batches of up to `size` that have the same modalities in the same shapes.

    Rows that have none of the named modalities are left out.
    """
    waiting: dict[tuple[tuple[str, tuple[int, ...]], ...], list[tuple[int, Inputs]]] = {}
    for row in range(rows):
        inputs = read_example(folder, row, names)
        if not inputs:
            continue
        key = tuple((name, value.shape) for name, value in inputs.items())
        group = waiting.setdefault(key, [])
        group.append((row, inputs))
        if len(group) == size:
            yield _stack(waiting.pop(key))
    for group in waiting.values():
        yield _stack(group)


def _stack(group: list[tuple[int, Inputs]]) -> tuple[list[int], Inputs]:
    return [row for row, _ in group], {name: np.concatenate([i[name] for _, i in group]) for name in group[0][1]}
