"""Dividing rows into splits, the same way for the same seed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triptych.errors import DataError

Array = NDArray[Any]
NAMES = ("train", "validation", "test")
_ALIASES = {"training": "train", "val": "validation", "valid": "validation", "dev": "validation", "testing": "test"}


def by_column(values: Sequence[object], column: str) -> dict[str, Array]:
    """Rows by the split that a column names.  Raises DataError."""
    names = [str(value).strip().lower() for value in values]
    splits = np.array([_ALIASES.get(name, name) for name in names], np.str_)
    unknown = np.flatnonzero(~np.isin(splits, NAMES))
    if len(unknown):
        row = int(unknown[0])
        raise DataError(f"row {row}, column {column!r}: split {values[row]!r} is not one of {list(NAMES)}; correct it")
    return {name: np.flatnonzero(splits == name) for name in NAMES if (splits == name).any()}


def by_share(units: Sequence[object], strata: Sequence[object], shares: Sequence[float], seed: int) -> dict[str, Array]:
    """Rows divided by shares of (train, validation, test), never splitting a unit, evenly over the strata.

    units: (rows,) what must stay together, such as a person; strata: (rows,) what to spread evenly, such as a class.
    Raises DataError.
    """
    if len(shares) != 3 or min(shares) < 0 or not np.isclose(sum(shares), 1):
        raise DataError(f"expected three shares for {list(NAMES)} that sum to 1, got {list(shares)}")
    _, first, unit_of = np.unique(np.asarray(units, np.str_), return_index=True, return_inverse=True)
    order = np.random.default_rng(seed).permutation(len(first))
    order = order[np.argsort(np.asarray(strata, np.str_)[first[order]], kind="stable")]
    part = np.zeros(len(first), np.int64)
    part[_every(order, shares[2])] = 2
    rest = order[part[order] == 0]
    part[_every(rest, shares[1] / max(1 - shares[2], 1e-9))] = 1
    return {name: np.flatnonzero(part[unit_of] == number) for number, name in enumerate(NAMES) if shares[number] > 0}


def _every(order: Array, share: float) -> Array:
    """Pick a share of the items at even distances, and at least one of two or more."""
    steps = np.floor((np.arange(len(order) + 1) + 0.5) * share)
    picked: Array = order[np.diff(steps) > 0]
    return order[:1] if share > 0 and not len(picked) and len(order) > 1 else picked
