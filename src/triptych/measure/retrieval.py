"""Finding one side of a pair by the other: exact ranks over a whole split, and what is read off them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
_BLOCK = 512


def ranks(outputs: Floats, targets: NDArray[Any]) -> NDArray[np.int64]:
    """Rank of the best right answer to every query, from 1: (rows, 2), by target and then by query.

    The first column asks with each row's query for targets, the second with its target for queries; every row of the
    split is a candidate.  A row is a right answer where it shows the same value as the asking row on either side.
    Wrong answers that are exactly as similar as the best right one count as found before it.

    outputs: (rows, 2 · embedding), unit vectors, the query's first; targets: (rows, 2), equal numbers are equal values
    """
    query, target = np.split(outputs, 2, axis=1)
    return np.stack([_ranks(query, target, targets), _ranks(target, query, targets)], axis=1)


def first_answers(outputs: Floats) -> NDArray[np.int64]:
    """Row of the most similar answer to every query: (rows, 2), columns as in `ranks`.

    outputs: (rows, 2 · embedding)
    """
    query, target = np.split(outputs, 2, axis=1)
    return np.stack([_first(query, target), _first(target, query)], axis=1)


def recalls(found: NDArray[np.int64], most: int) -> Floats:
    """Share of a row's two searches that find a right answer among the first `most`: (rows,).  found: (rows, 2)"""
    return np.asarray((found <= most).mean(axis=1))


def details(outputs: Floats, targets: NDArray[Any], pair: tuple[str, ...]) -> dict[str, float]:
    """Recall at 1 and at 10 and the median rank in both directions, by name such as `image_to_title_recall_at_1`."""
    found = ranks(outputs, targets)
    figures: dict[str, float] = {}
    for column, (asking, asked) in enumerate((pair, pair[::-1])):
        one = found[:, column]
        figures |= {
            f"{asking}_to_{asked}_recall_at_1": float((one <= 1).mean()),
            f"{asking}_to_{asked}_recall_at_10": float((one <= 10).mean()),
            f"{asking}_to_{asked}_median_rank": float(np.median(one)),
        }
    return figures


def _ranks(asking: Floats, asked: Floats, targets: NDArray[Any]) -> NDArray[np.int64]:
    found = np.empty(len(asking), np.int64)
    for start in range(0, len(asking), _BLOCK):
        block = slice(start, start + _BLOCK)
        similarity = asking[block] @ asked.T
        right = (targets[block, None] == targets[None]).any(axis=2)
        best = np.where(right, similarity, -np.inf).max(axis=1, keepdims=True)
        found[block] = 1 + ((similarity >= best) & ~right).sum(axis=1)
    return found


def _first(asking: Floats, asked: Floats) -> NDArray[np.int64]:
    blocks = (asking[start : start + _BLOCK] for start in range(0, len(asking), _BLOCK))
    return np.concatenate([(block @ asked.T).argmax(axis=1) for block in blocks])
