"""What each modality earns: Shapley values of the quality over subsets of the modalities (Shapley 1953).

A modality's value is its mean gain over the orders in which they can join: φ_m = mean (v(before + m) − v(before)).
v of a subset is the quality of the answers from it alone, v of nothing that of the best answer that looks at nothing;
the values add up to the quality of everything less that of nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triptych.measure import quality
from triptych.schema import Schema

Floats = NDArray[np.float64]
Subset = tuple[str, ...]  # names in the order of the schema; empty is nothing

EXACT = 4  # modalities of which every order is gone through
PAIRS = 8  # drawn orders above that, each beside its reverse


@dataclass(frozen=True, slots=True)
class Orders:
    """Orders in which the modalities may join.

    joined: modality names, first to last; all orders up to four modalities, else drawn ones, each followed by its
            reverse, which makes up for what luck does to the first (Mitchell et al. 2022)
    """

    names: Subset
    joined: tuple[Subset, ...]
    drawn: bool

    @classmethod
    def of(cls, names: Sequence[str], *, seed: int) -> Orders:
        """Every order of up to four modalities, 8 drawn ones and their reverses of more."""
        if len(names) <= EXACT:
            return cls(tuple(names), tuple(permutations(names)), drawn=False)
        generator = np.random.default_rng(seed)
        first = [tuple(names[i] for i in generator.permutation(len(names))) for _ in range(PAIRS)]
        return cls(tuple(names), tuple(order for one in first for order in (one, one[::-1])), drawn=True)

    def subset(self, names: Sequence[str]) -> Subset:
        """The names in the order of the schema."""
        return tuple(name for name in self.names if name in names)

    def subsets(self) -> tuple[Subset, ...]:
        """Every subset that some order passes through, from one modality to all of them."""
        passed = (self.subset(order[:size]) for size in range(1, len(self.names) + 1) for order in self.joined)
        return tuple(dict.fromkeys(passed))

    def gains(self, values: Mapping[Subset, Floats]) -> Floats:
        """What each modality adds where it joins: (orders, modalities, resamples).  values: (resamples,) by subset"""
        return np.stack([np.stack([self._gain(order, name, values) for name in self.names]) for order in self.joined])

    def _gain(self, order: Subset, name: str, values: Mapping[Subset, Floats]) -> Floats:
        place = order.index(name)
        return values[self.subset(order[: place + 1])] - values[self.subset(order[:place])]

    def weights(self, resamples: int, generator: np.random.Generator) -> Floats:
        """How much each order counts in each resample: (orders, resamples); drawn pairs are drawn again."""
        if not self.drawn:
            return np.full((len(self.joined), resamples), 1 / len(self.joined))
        again = generator.multinomial(PAIRS, np.full(PAIRS, 1 / PAIRS), size=resamples).T
        return np.repeat(again / (2 * PAIRS), 2, axis=0)


@dataclass(frozen=True, slots=True)
class Earned:
    """A modality's Shapley value in the metric's units, positive is better, and its 95 % bootstrap interval.

    The interval resamples rows, and the orders too where they were drawn.
    """

    value: float
    interval: tuple[float, float]


def shapley(
    answers: Mapping[Subset, Floats],
    targets: NDArray[Any],
    schema: Schema,
    orders: Orders,
    *,
    generator: np.random.Generator,
) -> dict[str, Earned]:
    """What each modality earns.

    answers: (rows, outputs) of every subset in `orders.subsets()`, NaN for a row that has nothing of the subset, which
             counts as answered by looking at nothing;  targets: (rows,)
    """
    rows = quality.usable(targets, schema)
    given = with_nothing(answers, targets, schema)
    scores = {subset: quality.scorer(found[rows], targets[rows], schema) for subset, found in given.items()}
    sign = 1.0 if quality.higher_is_better(schema.metric) else -1.0
    count = int(rows.sum())

    def earned(counts: quality.Counts, weights: Floats) -> Floats:
        gains = orders.gains({subset: sign * score(counts) for subset, score in scores.items()})
        return np.asarray(np.einsum("omr,or->mr", gains, weights))

    whole = earned(np.ones((1, count), np.int64), np.full((len(orders.joined), 1), 1 / len(orders.joined)))[:, 0]
    chunks = [earned(c, orders.weights(len(c), generator)) for c in quality.resamples(count, generator)]
    drawn = np.concatenate(chunks, axis=1)
    return {
        name: Earned(float(value), quality.interval(spread))
        for name, value, spread in zip(orders.names, whole, drawn, strict=True)
    }


def qualities(answers: Mapping[Subset, Floats], targets: NDArray[Any], schema: Schema) -> dict[str, float]:
    """The metric by subset, its names joined by '+'; '' is the best answer that looks at nothing.

    answers, targets: as in `shapley`
    """
    given = with_nothing(answers, targets, schema)
    return {"+".join(subset): quality.quality(found, targets, schema) for subset, found in given.items()}


def with_nothing(answers: Mapping[Subset, Floats], targets: NDArray[Any], schema: Schema) -> dict[Subset, Floats]:
    """The answers, those of nothing among them, which also stand where a row has nothing of a subset."""
    nothing = constant_answer(targets, schema)
    filled = {s: np.where(np.isfinite(a).all(axis=1, keepdims=True), a, nothing) for s, a in answers.items()}
    return {(): nothing, **filled}


def constant_answer(targets: NDArray[Any], schema: Schema) -> Floats:
    """The best answer that looks at nothing, for every row: (rows, outputs).

    The shares of the classes as logits; the more frequent sign for acc2, the median for mae.  targets: (rows,)
    """
    known = targets[quality.usable(targets, schema)]
    if schema.task == "classification":
        counts = np.bincount(known, minlength=schema.outputs)
        one = np.log(np.maximum(counts, 0.5) / max(len(known), 1))
    elif schema.metric == "acc2":
        one = np.array([1.0 if (known > 0).mean() >= 0.5 else -1.0])
    else:
        one = np.array([float(np.median(known))])
    return np.broadcast_to(one, (len(targets), len(one))).astype(np.float64)
