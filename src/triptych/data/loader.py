"""Splits to batches of tensors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from triptych.data.dataset import Split
from triptych.errors import DataError
from triptych.schema import Schema
from triptych.tokens import Batch

Array = NDArray[Any]


def batches(
    split: Split,
    schema: Schema | None = None,
    *,
    batch_size: int,
    seed: int,
    epoch: int = 0,
    shuffle: bool = True,
    workers: int = 0,
    drop_last: bool = False,
) -> Iterator[Batch]:
    """Go once through a split, in an order that depends on (seed, epoch) alone.

    schema:  decode for this one instead of the split's own, such as a model's
    workers: processes that decode what is not in memory yet
    Raises DataError when a row cannot be decoded, naming row and column.
    """
    if batch_size < 1:
        raise DataError(f"batch_size must be at least 1, got {batch_size}")
    split = split if schema is None else split.with_schema(schema)
    rows = order(len(split), seed=seed, epoch=epoch) if shuffle else np.arange(len(split))
    stop = len(rows) - len(rows) % batch_size if drop_last else len(rows)
    chunks = [rows[start : start + batch_size] for start in range(0, stop, batch_size)]
    if workers and not _in_memory(split):
        yield from _with_workers(split, chunks, workers)
    else:
        yield from (batch_of(split, chunk) for chunk in chunks)


def batch_of(split: Split, rows: Sequence[int] | Array) -> Batch:
    """One batch of the given rows.  Raises DataError naming row and column."""
    index = np.asarray(rows, np.int64)
    return _batch(split, index, *split.stack(index))


def order(length: int, *, seed: int, epoch: int = 0) -> Array:
    """A permutation that depends on its arguments alone: (length,) int64."""
    return np.random.default_rng([seed, epoch]).permutation(length)


def _batch(split: Split, rows: Array, inputs: dict[str, Array], present: dict[str, Array]) -> Batch:
    return Batch(
        inputs={name: torch.from_numpy(array) for name, array in inputs.items()},
        present={name: torch.from_numpy(array) for name, array in present.items()},
        target=torch.from_numpy(split.targets[rows]),
        rows=torch.from_numpy(rows.copy()),
    )


def _in_memory(split: Split) -> bool:
    return all(split.table.feed(modality).knows(split.numbers) for modality in split.schema.modalities)


class _Decoding(torch.utils.data.Dataset[Any]):
    """What a worker process runs: one item is one batch, or the error that it raised."""

    def __init__(self, split: Split, chunks: list[Array]) -> None:
        self.split, self.chunks = split, chunks

    def __len__(self) -> int:
        return len(self.chunks)

    def __getitem__(self, number: int) -> tuple[dict[str, Array], dict[str, Array]] | DataError:
        try:
            return self.split.stack(self.chunks[number])
        except DataError as error:
            return type(error)(str(error))


def _with_workers(split: Split, chunks: list[Array], workers: int) -> Iterator[Batch]:
    loader = torch.utils.data.DataLoader(
        _Decoding(split, chunks), batch_size=None, num_workers=workers, collate_fn=_as_is, prefetch_factor=4
    )
    for chunk, result in zip(chunks, loader, strict=True):
        if isinstance(result, DataError):
            raise result
        inputs, present = result
        for name, array in inputs.items():
            split.table.feed(split.schema[name]).remember(split.numbers[chunk], array)
        yield _batch(split, chunk, inputs, present)


def _as_is(item: Any) -> Any:
    return item
