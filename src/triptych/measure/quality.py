"""How good the answers are, how sure that is, and how much they differ from another candidate's.

Every metric here is a function of how often each row is counted, so the bootstrap resamples rows by
counting them, and a paired comparison counts the same rows for both candidates.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triptych.errors import MeasureError
from triptych.measure import retrieval
from triptych.schema import Metric, Schema, Task

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]
Scorer = Callable[[Counts], Floats]

RESAMPLES = 2000
_CHUNK = 64
_EXACT_FLIPS = 12


@dataclass(frozen=True, slots=True)
class Comparison:
    """A candidate against a reference on the same rows; a positive drop means that it is worse."""

    drop: float
    interval: tuple[float, float]
    p: float


def higher_is_better(metric: str) -> bool:
    """Whether more of the metric is better: only an error is better when low."""
    return metric != "mae"


def usable(targets: NDArray[Any], schema: Schema) -> NDArray[np.bool_]:
    """Rows that count for the metric: those with a known target; for acc2 also a non-zero one.

    targets: (rows,), for retrieval (rows, 2)
    """
    return np.asarray(known(targets, schema) & (targets != 0)) if schema.metric == "acc2" else known(targets, schema)


def known(targets: NDArray[Any], schema: Schema) -> NDArray[np.bool_]:
    """Rows with a target; for retrieval with both sides.  targets: (rows,), for retrieval (rows, 2)"""
    return _KNOWN[schema.task](targets)


_KNOWN: dict[Task, Callable[[NDArray[Any]], NDArray[np.bool_]]] = {
    "classification": lambda targets: np.asarray(targets >= 0),
    "regression": lambda targets: np.isfinite(targets.astype(np.float64)),
    "retrieval": lambda targets: np.asarray((targets >= 0).all(axis=1)),
}


def defined(targets: NDArray[Any], schema: Schema) -> bool:
    """Whether the metric has a value: it needs a usable row, auroc rows of both classes.  targets: as in `usable`"""
    used = targets[usable(targets, schema)]
    if schema.metric != "auroc":
        return len(used) > 0
    positive = used == schema.classes.index(schema.positive)
    return bool(positive.any() and not positive.all())


def quality(outputs: Floats, targets: NDArray[Any], schema: Schema) -> float:
    """The schema's metric.  Raises MeasureError if it is undefined.

    recall_at_1 and recall_at_10 are means over both directions, of a search among all usable rows (see
    `retrieval.ranks`).  outputs: (rows, outputs); targets: as in `usable`
    """
    kept, true = _usable(outputs, targets, schema)
    return float(scorer(kept, true, schema)(np.ones((1, len(true)), np.int64))[0])


def quality_interval(
    outputs: Floats, targets: NDArray[Any], schema: Schema, *, generator: np.random.Generator
) -> tuple[float, float]:
    """95 % percentile bootstrap interval of the metric.  outputs: (rows, outputs); targets: as in `usable`

    Resamples rows; for retrieval the queries, among the same candidates.
    """
    kept, true = _usable(outputs, targets, schema)
    score = scorer(kept, true, schema)
    return interval(np.concatenate([score(c) for c in resamples(len(true), generator)]))


def compare(
    outputs: Floats,
    reference: Floats,
    targets: NDArray[Any],
    schema: Schema,
    *,
    generator: np.random.Generator,
) -> Comparison:
    """Drop in quality against the reference, with a paired bootstrap interval and a paired test.

    outputs, reference: (rows, outputs); targets: as in `usable`
    The test is McNemar's exact one for accuracy and acc2, exact or random sign flips for mae and recall, and random
    swaps of the two candidates' ranks for auroc.
    """
    mine, true = _usable(outputs, targets, schema)
    theirs, _ = _usable(reference, targets, schema)
    score, score_reference = scorer(mine, true, schema), scorer(theirs, true, schema)
    sign = 1.0 if higher_is_better(schema.metric) else -1.0

    def drops(counts: Counts) -> Floats:
        return sign * (score_reference(counts) - score(counts))

    return Comparison(
        drop=float(drops(np.ones((1, len(true)), np.int64))[0]),
        interval=interval(np.concatenate([drops(c) for c in resamples(len(true), generator)])),
        p=_paired_test(mine, theirs, true, schema, generator),
    )


def loyalty(outputs: Floats, reference: Floats, schema: Schema) -> float:
    """Share of rows that get the reference's answer: its class, its sign (acc2), or within 0.1 scale of it (mae).

    For retrieval the share of searches, in both directions, that find the same row first.
    outputs, reference: (rows, outputs)
    """
    if schema.task == "classification":
        return float(np.mean(outputs.argmax(1) == reference.argmax(1)))
    if schema.task == "retrieval":
        return float(np.mean(retrieval.first_answers(outputs) == retrieval.first_answers(reference)))
    mine, theirs = outputs[:, 0], reference[:, 0]
    if schema.metric == "acc2":
        return float(np.mean(np.sign(mine) == np.sign(theirs)))
    return float(np.mean(np.abs(mine - theirs) <= 0.1 * schema.scale))


def details(outputs: Floats, targets: NDArray[Any], schema: Schema) -> dict[str, float]:
    """More figures of the task by name, for tasks that one metric does not exhaust (retrieval); else nothing.

    outputs: (rows, outputs); targets: as in `usable`
    """
    if schema.task != "retrieval":
        return {}
    return retrieval.details(*_usable(outputs, targets, schema), schema.pair)


def scorer(outputs: Floats, targets: NDArray[Any], schema: Schema) -> Scorer:
    """The metric as a function of how often each row counts: (resamples, rows) → (resamples,).

    outputs: (rows, outputs); targets: as in `usable`, all known
    """
    if schema.metric == "auroc":
        positive = schema.classes.index(schema.positive)
        return _auroc(_log_odds(outputs, positive), targets == positive)
    values = _row_values(outputs, targets, schema)
    return lambda counts: np.asarray((counts @ values) / counts.sum(1))


def resamples(rows: int, generator: np.random.Generator, number: int = RESAMPLES) -> Iterator[Counts]:
    """Bootstrap resamples as counts per row, in chunks of (up to 64, rows)."""
    for start in range(0, number, _CHUNK):
        drawn = generator.integers(rows, size=(min(_CHUNK, number - start), rows))
        yield np.stack([np.bincount(d, minlength=rows) for d in drawn])


def interval(values: Floats) -> tuple[float, float]:
    """Middle 95 % of bootstrap values; undefined resamples (auroc with one class) are left out."""
    low, high = np.nanpercentile(values, [2.5, 97.5])
    return float(low), float(high)


def mcnemar(mine: NDArray[np.bool_], theirs: NDArray[np.bool_]) -> float:
    """Exact two-sided McNemar test of two candidates' right answers.  mine, theirs: (rows,) bool"""
    only_mine, only_theirs = int((mine & ~theirs).sum()), int((theirs & ~mine).sum())
    discordant = only_mine + only_theirs
    tail = sum(math.comb(discordant, k) for k in range(min(only_mine, only_theirs) + 1))
    return float(min(1.0, 2 * tail / 2**discordant))


def sign_flip(differences: Floats, generator: np.random.Generator) -> float:
    """Two-sided paired permutation test that the mean difference is zero: exact up to 12 rows, else 10,000 flips.

    differences: (rows,)
    """
    moved = differences[differences != 0]
    if not len(moved):
        return 1.0
    seen = abs(moved.sum()) * (1 - 1e-12)
    if len(moved) <= _EXACT_FLIPS:
        bits = np.arange(2 ** len(moved))[:, None] >> np.arange(len(moved)) & 1
        return float(np.mean(np.abs((1 - 2 * bits) @ moved) >= seen))
    hits = sum(abs(generator.choice([-1.0, 1.0], len(moved)) @ moved) >= seen for _ in range(9999))
    return float(1 + hits) / 10000


def _usable(outputs: Floats, targets: NDArray[Any], schema: Schema) -> tuple[Floats, NDArray[Any]]:
    width = schema.outputs or 2 * (outputs.shape[-1] // 2)  # retrieval: whatever two sides give
    if outputs.shape != (len(targets), width) or not width:
        expected = (len(targets), schema.outputs or "2 · embedding")
        raise MeasureError(f"expected outputs of shape {expected} for {schema.name!r}, got {outputs.shape}")
    rows = usable(targets, schema)
    if not rows.any():
        raise MeasureError(f"{schema.metric} needs rows with a known target; none of the {len(targets)} has one")
    return outputs[rows].astype(np.float64), targets[rows]


def _row_values(outputs: Floats, targets: NDArray[Any], schema: Schema) -> Floats:
    """What each row adds to the mean that the metric is.  Returns (rows,)."""
    return np.asarray(_VALUES[schema.metric](outputs, targets), np.float64)


_VALUES: dict[Metric, Callable[[Floats, NDArray[Any]], NDArray[Any]]] = {
    "accuracy": lambda outputs, targets: outputs.argmax(1) == targets,
    "acc2": lambda outputs, targets: np.sign(outputs[:, 0]) == np.sign(targets.astype(np.float64)),
    "mae": lambda outputs, targets: np.abs(outputs[:, 0] - targets.astype(np.float64)),
    "recall_at_1": lambda outputs, targets: retrieval.recalls(retrieval.ranks(outputs, targets), 1),
    "recall_at_10": lambda outputs, targets: retrieval.recalls(retrieval.ranks(outputs, targets), 10),
}


def _log_odds(logits: Floats, positive: int) -> Floats:
    """Log odds of the positive class: ranks as its probability does, without saturating.  logits: (rows, classes)"""
    others = np.delete(logits, positive, axis=1)
    top = others.max(1)
    return np.asarray(logits[:, positive] - top - np.log(np.exp(others - top[:, None]).sum(1)))


def _auroc(scores: Floats, positive: NDArray[np.bool_]) -> Scorer:
    """Rank formula: share of (positive, negative) pairs in the right order, ties counting half.  scores: (rows,)"""
    if positive.all() or not positive.any():
        raise MeasureError(f"auroc needs rows of both classes, got {int(positive.sum())} positives of {len(positive)}")
    order = np.argsort(scores, kind="stable")
    is_positive, ranked = positive[order], scores[order]
    starts = np.flatnonzero(np.concatenate([[True], ranked[1:] != ranked[:-1]]))

    def score(counts: Counts) -> Floats:
        ups = np.add.reduceat(counts[:, order] * is_positive, starts, axis=1)
        downs = np.add.reduceat(counts[:, order] * ~is_positive, starts, axis=1)
        below = downs.cumsum(1) - downs
        pairs = (ups.sum(1) * downs.sum(1)).astype(np.float64)
        pairs[pairs == 0] = np.nan
        return np.asarray((ups * (below + downs / 2)).sum(1) / pairs)

    return score


def _paired_test(
    mine: Floats, theirs: Floats, targets: NDArray[Any], schema: Schema, generator: np.random.Generator
) -> float:
    if schema.metric == "auroc":
        positive = schema.classes.index(schema.positive)
        scores = _log_odds(mine, positive), _log_odds(theirs, positive)
        return _swap_ranks(*scores, targets == positive, generator)
    first, second = _row_values(mine, targets, schema), _row_values(theirs, targets, schema)
    if schema.metric in {"accuracy", "acc2"}:
        return mcnemar(first > 0, second > 0)
    return sign_flip(first - second, generator)


def _swap_ranks(mine: Floats, theirs: Floats, positive: NDArray[np.bool_], generator: np.random.Generator) -> float:
    """Permutation test of two areas: swap the candidates' ranks per row (Venkatraman & Begg, 1996)."""
    first, second = _ranks(mine), _ranks(theirs)
    once = np.ones((1, len(first)), np.int64)

    def gap(swapped: NDArray[np.bool_]) -> float:
        a, b = np.where(swapped, second, first), np.where(swapped, first, second)
        return float(abs(_auroc(a, positive)(once)[0] - _auroc(b, positive)(once)[0]))

    seen = gap(np.zeros(len(first), np.bool_)) * (1 - 1e-12)
    if seen == 0:
        return 1.0
    hits = sum(gap(generator.random(len(first)) < 0.5) >= seen for _ in range(RESAMPLES - 1))
    return float(1 + hits) / RESAMPLES


def _ranks(scores: Floats) -> Floats:
    """Mid-ranks from 1, ties sharing their mean rank.  scores: (rows,)"""
    _, inverse, sizes = np.unique(scores, return_inverse=True, return_counts=True)
    return np.asarray((sizes.cumsum() - (sizes - 1) / 2)[inverse])
