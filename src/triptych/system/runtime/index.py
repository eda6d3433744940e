"""An exact index of embeddings: what a retrieval bundle searches, in numpy alone."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self, final

import numpy as np
from numpy.typing import NDArray

from triptych.errors import DataError, LimitError

Array = NDArray[Any]
FORMAT = "triptych-index"
VERSION = 1
MAX_INDEX_BYTES = 4 << 30
MAX_WIDTH = 65_536
_LENGTH_ERROR = 1e-2  # of a vector of length one
_FLAGS = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


@dataclass(frozen=True, slots=True)
class Match:
    """One found entry.  score: cosine with the query, from -1 to 1"""

    id: str
    score: float


@final
class Index:
    """Unit vectors by id, searched exactly: one matrix product, then a partial sort.

    width:    of every vector
    modality: which side the vectors embed; empty where unknown
    space:    `Bundle.space` of the bundle that made them, so that no other one's vectors are compared; empty for any
    """

    def __init__(self, width: int, *, modality: str = "", space: str = "") -> None:
        if not 0 < width <= MAX_WIDTH:
            raise DataError(f"vectors of an index must have from 1 to {MAX_WIDTH} numbers, got {width}")
        self.width, self.modality, self.space = width, modality, space
        self.ids: list[str] = []
        self._known: set[str] = set()
        self._vectors = np.empty((0, width), np.float32)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def vectors(self) -> Array:
        """(entries, width) float32, in the order added."""
        return self._vectors

    def add(self, ids: Sequence[str], vectors: Array) -> None:
        """Add entries.  vectors: (entries, width), of length one.  Raises DataError; nothing is added then."""
        ids, rows = [str(name) for name in ids], self._checked(vectors, len(ids))
        if len({*ids}) < len(ids) or not self._known.isdisjoint(ids):
            twice = next(name for i, name in enumerate(ids) if name in self._known or name in ids[:i])
            raise DataError(f"the id {twice!r} would be in the index twice; make ids unique")
        lengths = np.linalg.norm(rows, axis=1)
        if len(rows) and np.abs(lengths - 1).max() > _LENGTH_ERROR:
            far = int(np.abs(lengths - 1).argmax())
            raise DataError(f"the vector of {ids[far]!r} has the length {lengths[far]:.4g}, expected 1; embed it anew")
        self.ids += ids
        self._known.update(ids)
        self._vectors = np.concatenate([self._vectors, rows])

    def search(self, vector: Array, k: int = 10) -> list[Match]:
        """The `k` most similar entries, best first; equal ones in the order added.  vector: (width,)"""
        return self.search_many(np.asarray(vector)[None], k)[0]

    def search_many(self, vectors: Array, k: int = 10) -> list[list[Match]]:
        """As `search`, for several vectors: (queries, width).  Raises DataError."""
        if k < 1:
            raise DataError(f"k must be at least 1, got {k}")
        queries = self._checked(vectors, len(vectors))
        return [self._best(scores, min(k, len(self))) for scores in queries @ self._vectors.T]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the index as one safetensors file, whole or not at all."""
        from safetensors.numpy import save

        about = {"format": FORMAT, "version": VERSION, "modality": self.modality, "space": self.space, "ids": self.ids}
        text = np.frombuffer(json.dumps(about, ensure_ascii=False).encode(), np.uint8)
        partial = f"{os.fspath(path)}.partial"
        with open(partial, "wb") as file:
            file.write(save({"about": text, "vectors": np.ascontiguousarray(self._vectors)}))
        os.replace(partial, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, max_bytes: int = MAX_INDEX_BYTES) -> Self:
        """Read what `save` wrote, as untrusted input: a plain file, no pickle, every size, type and number checked.

        Raises DataError; LimitError where it has more than `max_bytes`.
        """
        about, vectors = _parse(_read(os.fspath(path), max_bytes), os.path.basename(path))
        index = cls(vectors.shape[1], modality=about["modality"], space=about["space"])
        index.add(about["ids"], vectors)
        return index

    def _best(self, scores: Array, k: int) -> list[Match]:
        if not k:
            return []
        least = np.partition(scores, len(scores) - k)[len(scores) - k]
        rows = np.flatnonzero(scores >= least)
        order = rows[np.lexsort((rows, -scores[rows]))][:k]
        return [Match(self.ids[row], float(scores[row])) for row in order]

    def _checked(self, vectors: Array, rows: int) -> Array:
        given = np.asarray(vectors)
        if given.shape != (rows, self.width) or given.dtype.kind != "f":
            raise DataError(f"expected real vectors of shape ({rows}, {self.width}), got {given.dtype} {given.shape}")
        if not np.isfinite(given).all():
            raise DataError("a vector holds a number that is not finite; embed its row anew")
        return np.asarray(given, np.float32)


def _read(path: str, most: int) -> bytes:
    try:
        descriptor = os.open(path, _FLAGS)
    except OSError as error:
        raise DataError(f"cannot read the index {path!r}: {error.strerror}") from error
    facts = os.fstat(descriptor)
    if not stat.S_ISREG(facts.st_mode):
        os.close(descriptor)
        raise DataError(f"the index {path!r} is not a plain file")
    with os.fdopen(descriptor, "rb") as file:
        if facts.st_size > most:
            raise LimitError(f"the index {path!r} has {facts.st_size} bytes, at most {most} are read")
        return file.read(most + 1)


def _parse(data: bytes, name: str) -> tuple[dict[str, Any], Array]:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        tensors = load(data)
        about = json.loads(tensors["about"].tobytes().decode()) if tensors.keys() == {"about", "vectors"} else None
    except (SafetensorError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(f"{name} is not a readable index: {error}; write it again") from error
    if about is None or not _fits(about) or tensors["vectors"].ndim != 2 or tensors["vectors"].dtype != np.float32:
        raise DataError(f"{name} is not an index of version {VERSION}; write it again with `triptych index`")
    return about, tensors["vectors"]


def _fits(about: Any) -> bool:
    texts = {"format", "modality", "space"}
    return (
        isinstance(about, dict)
        and about.keys() == {*texts, "version", "ids"}
        and all(isinstance(about[key], str) for key in texts)
        and (about["format"], about["version"]) == (FORMAT, VERSION)
        and isinstance(about["ids"], list)
        and all(isinstance(one, str) for one in about["ids"])
    )
