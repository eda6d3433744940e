"""The index: exact against brute force, and files that nobody should trust."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from triptych.errors import DataError, LimitError
from triptych.system.runtime.index import Index


def unit(rows: int, width: int = 8, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(rows, width)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def filled(rows: int = 50) -> Index:
    index = Index(8, modality="title", space="abc")
    index.add([f"row {number}" for number in range(rows)], unit(rows))
    return index


@pytest.mark.parametrize("k", [1, 7, 50, 80])
def test_a_search_is_exact(k: int) -> None:
    index, query = filled(), unit(1, seed=1)[0]
    scores = index.vectors @ query
    order = sorted(range(50), key=lambda row: -scores[row])[:k]
    found = index.search(query, k)
    assert [match.id for match in found] == [f"row {row}" for row in order]
    assert [match.score for match in found] == pytest.approx(scores[order])


def test_many_queries_are_answered_as_one() -> None:
    index, queries = filled(), unit(5, seed=2)
    many = index.search_many(queries, 3)
    assert [[m.id for m in found] for found in many] == [[m.id for m in index.search(q, 3)] for q in queries]


def test_equal_entries_come_in_the_order_added() -> None:
    index = Index(8)
    index.add(["c", "a"], unit(1).repeat(2, axis=0))
    index.add(["b", "far"], np.concatenate([unit(1), -unit(1)]))
    assert [m.id for m in index.search(unit(1)[0], 2)] == ["c", "a"]
    assert [m.id for m in index.search(unit(1)[0], 9)] == ["c", "a", "b", "far"]
    assert Index(8).search(unit(1)[0]) == []


@pytest.mark.parametrize(
    ("ids", "vectors", "message"),
    [
        (["a", "a"], unit(2), "'a' would be in the index twice"),
        (["row 3"], unit(1), "'row 3' would be in the index twice"),
        (["a"], unit(2), "shape"),
        (["a"], unit(1, width=7), "shape"),
        (["a"], np.ones((1, 8), np.int64), "real vectors"),
        (["a"], unit(1) * 2, "length 2"),
        (["a"], unit(1) * np.nan, "not finite"),
    ],
)
def test_wrong_entries_are_refused_and_leave_the_index_as_it_was(
    ids: list[str], vectors: np.ndarray, message: str
) -> None:
    index = filled(5)
    with pytest.raises(DataError, match=message):
        index.add(ids, vectors)
    assert len(index) == len(index.vectors) == 5


def test_wrong_queries_are_refused() -> None:
    for query, k in ((unit(1, width=7)[0], 1), (unit(1)[0] * np.inf, 1), (unit(1)[0], 0)):
        with pytest.raises(DataError):
            filled().search(query, k)
    with pytest.raises(DataError, match="numbers"):
        Index(0)


def test_it_survives_the_disk(tmp_path: Path) -> None:
    index = filled()
    index.save(tmp_path / "titles.safetensors")
    again = Index.load(tmp_path / "titles.safetensors")
    assert (again.ids, again.modality, again.space) == (index.ids, "title", "abc")
    assert np.array_equal(again.vectors, index.vectors)
    assert [file.name for file in tmp_path.iterdir()] == ["titles.safetensors"]


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "titles.safetensors"
    filled().save(path)
    whole = path.read_bytes()
    for damaged in (b"", whole[:40], whole[:-1], whole + b"x", b"\xff" * 64, b'{"a": 1}'):
        path.write_bytes(damaged)
        with pytest.raises(DataError):
            Index.load(path)


def rewritten(path: Path, **changes: object) -> Path:
    """An index file with other tensors, or other words about them."""
    tensors = load_file(path)
    about = json.loads(tensors["about"].tobytes())
    for key, value in changes.items():
        if isinstance(value, np.ndarray):
            tensors[key] = value
        else:
            about[key] = value
    tensors["about"] = np.frombuffer(json.dumps(about).encode(), np.uint8)
    save_file(tensors, path)
    return path


@pytest.mark.parametrize(
    "change",
    [
        {"vectors": unit(50).astype(np.float64)},
        {"vectors": unit(50)[0]},
        {"vectors": unit(49)},
        {"vectors": unit(50) * np.float32(3)},
        {"vectors": unit(50) * np.float32(np.nan)},
        {"vectors": np.zeros((50, 0), np.float32)},
        {"more": unit(1)},
        {"ids": [1] * 50},
        {"ids": ["same"] * 50},
        {"ids": "text"},
        {"version": 2},
        {"format": "other"},
        {"modality": None},
        {"surprise": 1},
    ],
    ids=lambda change: f"{next(iter(change))}-{np.shape(next(iter(change.values())))}",
)
def test_foreign_content_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    path = tmp_path / "titles.safetensors"
    filled().save(path)
    with pytest.raises(DataError):
        Index.load(rewritten(path, **change))


def test_only_plain_files_of_an_allowed_size_are_read(tmp_path: Path) -> None:
    path = tmp_path / "titles.safetensors"
    filled().save(path)
    (tmp_path / "link").symlink_to(path)
    os.mkfifo(tmp_path / "pipe")
    for wrong in ("link", "pipe", "nowhere", "."):
        with pytest.raises(DataError):
            Index.load(tmp_path / wrong)
    with pytest.raises(LimitError, match="at most 100"):
        Index.load(path, max_bytes=100)
