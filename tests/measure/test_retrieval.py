"""Ranks against a naive loop, ties, repeated values, and what is made of them."""

from typing import Any

import numpy as np
import pytest

from triptych.errors import MeasureError
from triptych.measure import quality, retrieval
from triptych.schema import Modality, Schema

SIDES = (
    Modality("photo", "image", height=4, width=4, channels=1),
    Modality("title", "text", max_tokens=4, vocabulary=9),
)


def schema(metric: Any = "recall_at_1") -> Schema:
    return Schema("pairs", SIDES, "", "retrieval", metric, pair=("photo", "title"))


def made(rows: int, width: int = 6, seed: int = 0, noise: float = 1.0) -> np.ndarray:
    """Unit vectors of both sides; the less noise the more alike."""
    rng = np.random.default_rng(seed)
    query = rng.normal(size=(rows, width))
    target = query + noise * rng.normal(size=(rows, width))
    return np.concatenate([s / np.linalg.norm(s, axis=1, keepdims=True) for s in (query, target)], axis=1)


def naive(asking: np.ndarray, asked: np.ndarray, targets: np.ndarray) -> list[int]:
    found = []
    for i in range(len(asking)):
        likeness = [float(asking[i] @ asked[j]) for j in range(len(asked))]
        right = [j for j in range(len(asked)) if (targets[i] == targets[j]).any()]
        best = max(likeness[j] for j in right)
        found.append(1 + sum(likeness[j] >= best for j in range(len(asked)) if j not in right))
    return found


@pytest.mark.parametrize("repeats", [1, 3])
def test_ranks_are_those_of_a_naive_loop(repeats: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrieval, "_BLOCK", 7)  # several blocks, the last one shorter
    outputs = made(30)
    targets = np.stack([np.arange(30), np.arange(30) // repeats], axis=1)
    query, target = np.split(outputs, 2, axis=1)
    found = retrieval.ranks(outputs, targets)
    assert found[:, 0].tolist() == naive(query, target, targets)
    assert found[:, 1].tolist() == naive(target, query, targets)


def test_ties_with_wrong_answers_count_against_the_model() -> None:
    outputs = np.tile(np.eye(2)[0], (4, 2))  # everything alike: nothing is known
    targets = np.stack([np.arange(4)] * 2, axis=1)
    assert retrieval.ranks(outputs, targets).tolist() == [[4, 4]] * 4
    targets[1] = targets[0]
    assert retrieval.ranks(outputs, targets).tolist() == [[3, 3], [3, 3], [4, 4], [4, 4]]


def test_recall_is_the_mean_of_both_directions() -> None:
    outputs = np.concatenate([np.eye(4), np.eye(4)[[0, 1, 3, 3]]], axis=1)
    targets = np.stack([np.arange(4)] * 2, axis=1)
    # photo → title: rows 0, 1 find theirs; row 3 ties with row 2's title; row 2's is as far as the others
    found = retrieval.ranks(outputs, targets)
    assert found[:, 0].tolist() == [1, 1, 4, 2]
    assert found[:, 1].tolist() == [1, 1, 4, 1]
    assert quality.quality(outputs, targets, schema()) == pytest.approx((2 / 4 + 3 / 4) / 2)
    assert quality.quality(outputs, targets, schema("recall_at_10")) == 1
    details = quality.details(outputs, targets, schema())
    assert details["photo_to_title_recall_at_1"] == 0.5
    assert details["title_to_photo_recall_at_1"] == 0.75
    assert details["photo_to_title_median_rank"] == 1.5
    assert details["title_to_photo_recall_at_10"] == 1


def test_rows_without_a_side_are_no_candidates() -> None:
    outputs = made(12, noise=0.1)
    targets = np.stack([np.arange(12)] * 2, axis=1)
    fewer = quality.quality(outputs[:11], targets[:11], schema())
    outputs[11, :6], targets[11, 0] = 0.0, -1
    assert quality.quality(outputs, targets, schema()) == fewer
    assert quality.usable(targets, schema()).sum() == 11
    with pytest.raises(MeasureError, match="none of the 2"):
        quality.quality(outputs[:2], np.full((2, 2), -1), schema())
    with pytest.raises(MeasureError, match="embedding"):
        quality.quality(outputs[:, :11], targets, schema())


def test_intervals_and_paired_tests_resample_queries() -> None:
    targets = np.stack([np.arange(80)] * 2, axis=1)
    good, poor = made(80, noise=0.3), made(80, noise=2.0)
    low, high = quality.quality_interval(good, targets, schema(), generator=np.random.default_rng(0))
    assert low <= quality.quality(good, targets, schema()) <= high
    against = quality.compare(poor, good, targets, schema(), generator=np.random.default_rng(0))
    assert against.drop == pytest.approx(
        quality.quality(good, targets, schema()) - quality.quality(poor, targets, schema())
    )
    assert against.interval[0] > 0
    assert against.p < 0.01
    same = quality.compare(good, good, targets, schema(), generator=np.random.default_rng(0))
    assert (same.drop, same.p) == (0, 1)


def test_candidates_of_other_widths_can_be_compared() -> None:
    targets = np.stack([np.arange(20)] * 2, axis=1)
    wide, narrow = made(20, 6, noise=0.1), made(20, 3, noise=0.1)
    against = quality.compare(narrow, wide, targets, schema(), generator=np.random.default_rng(0))
    assert np.isfinite(against.drop)
    assert quality.loyalty(wide, wide, schema()) == 1
    assert 0 <= quality.loyalty(narrow, wide, schema()) <= 1


def test_only_retrieval_has_details() -> None:
    classes = Schema("x", SIDES, "y", "classification", "accuracy", classes=("a", "b"))
    assert quality.details(np.eye(2), np.arange(2), classes) == {}
