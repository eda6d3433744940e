"""Which values of a retrieval pair are equal: a repeated title is a right answer to each of its images."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triptych.data.feed import Feed, Table
from triptych.schema import Modality

Array = NDArray[Any]


def pair_numbers(table: Table, sides: Sequence[Modality]) -> Array:
    """What both sides of each row show: (rows, 2) int64, -1 where the side is missing.

    Equal numbers in a column are equal undecoded values; texts are compared without case and spacing.
    """
    return np.stack([_numbers(Feed(table, side)) for side in sides], axis=1)


def _numbers(feed: Feed) -> Array:
    seen: dict[bytes, int] = {}
    numbers = np.full(len(feed.present), -1, np.int64)
    for row in np.flatnonzero(feed.present).tolist():
        numbers[row] = seen.setdefault(_fingerprint(feed.raw(row)), len(seen))
    return numbers


def _fingerprint(value: object) -> bytes:
    if isinstance(value, Mapping):
        value = value["bytes"] if value.get("bytes") is not None else json.dumps(value, sort_keys=True, default=str)
    if isinstance(value, str):
        value = " ".join(value.casefold().split())
    if isinstance(value, np.ndarray):
        value = repr(value.shape).encode() + value.tobytes()
    content = value if isinstance(value, bytes) else str(value.resolve() if isinstance(value, Path) else value).encode()
    return hashlib.blake2b(content, digest_size=16).digest()
