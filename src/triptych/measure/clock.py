"""Statistics of timed predictions that were taken in interleaved rounds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

RESAMPLES = 2000


def percentile(samples_s: Sequence[float], percent: float) -> float:
    """Percentile with linear interpolation between samples.  samples_s: seconds"""
    return float(np.percentile(np.asarray(samples_s, np.float64), percent))


def ratio(
    samples_s: Sequence[float], reference_s: Sequence[float], rounds: int, *, generator: np.random.Generator
) -> tuple[float, tuple[float, float]]:
    """Median over rounds of the ratio of medians within a round, and its 95 % bootstrap interval over rounds.

    samples_s, reference_s: seconds, round after round, as many in each round
    """
    pairs = _round_medians(samples_s, rounds) / _round_medians(reference_s, rounds)
    drawn = np.median(pairs[generator.integers(rounds, size=(RESAMPLES, rounds))], axis=1)
    low, high = np.percentile(drawn, [2.5, 97.5])
    return float(np.median(pairs)), (float(low), float(high))


def _round_medians(samples_s: Sequence[float], rounds: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.asarray(np.median(np.asarray(samples_s, np.float64).reshape(rounds, -1), axis=1))
