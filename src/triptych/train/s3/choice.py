"""How many routes to keep: the share whose probe is best on validation, and how sure that is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from triptych.errors import TrainingError
from triptych.measure.quality import higher_is_better, interval, quality, resamples, scorer, usable
from triptych.schema import Schema

Array = NDArray[Any]
SHARES = tuple(percent / 100 for percent in range(100, 0, -10))


@final
@dataclass(frozen=True)
class Choice:
    """An automatic p.

    share:    the p of the best validation quality; of equals the smallest
    interval: middle 95 % of the p that resampled validation rows would have chosen
    curve:    by p: quality, and its 95 % interval
    """

    share: float
    interval: tuple[float, float]
    curve: Mapping[float, tuple[float, float, float]]


def choose_share(
    outputs: Mapping[float, Array], targets: Array, schema: Schema, *, generator: np.random.Generator
) -> Choice:
    """Choose among answers given with different shares of the routes.

    Rows are resampled for all shares alike, as answers to the same rows rise and fall together.
    outputs: (rows, outputs) by p; targets: (rows,).  Raises TrainingError where there is nothing to choose from.
    """
    if not outputs:
        raise TrainingError("no shares to choose from; give at least one, such as 1.0")
    shares = sorted(outputs)
    rows = usable(targets, schema)
    score = [scorer(outputs[p][rows].astype(np.float64), targets[rows], schema) for p in shares]
    sign = 1.0 if higher_is_better(schema.metric) else -1.0
    drawn = np.concatenate(
        [np.stack([one(counts) for one in score]) for counts in resamples(int(rows.sum()), generator)], axis=1
    )
    values = [quality(outputs[p].astype(np.float64), targets, schema) for p in shares]
    best = shares[int(np.argmax(sign * np.array(values)))]
    chosen = np.array(shares)[np.argmax(np.nan_to_num(sign * drawn, nan=-np.inf), axis=0)]
    low, high = np.percentile(chosen, [2.5, 97.5], method="nearest")
    curve = {p: (value, *interval(row)) for p, value, row in zip(shares, values, drawn, strict=True)}
    return Choice(best, (float(low), float(high)), curve)
