"""How much the work of each expert tells about a factor of the data."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def mutual_information(one: Array, other: Array) -> float:
    """Σ p(a, b) log2 p(a, b) / (p(a) p(b)) of two discrete variables by their counts, in bits.

    one, other: (rows,) of integers.  Of n rows and independent variables it is too high by about
    (kinds of one − 1)(kinds of other − 1) / (2 n ln 2); `corrected` takes that off.
    """
    kinds, rows = np.unique(one, return_inverse=True)
    others, columns = np.unique(other, return_inverse=True)
    counts = np.zeros((len(kinds), len(others)))
    np.add.at(counts, (rows, columns), 1)
    joint = counts / counts.sum()
    apart = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0, keepdims=True)
    seen = joint > 0
    return float((joint[seen] * np.log2(joint[seen] / apart[seen])).sum())


def corrected(one: Array, other: Array) -> float:
    """`mutual_information` less its bias (Miller 1955), at least zero: bits."""
    bias = (len(np.unique(one)) - 1) * (len(np.unique(other)) - 1) / (2 * len(one) * np.log(2))
    return max(0.0, mutual_information(one, other) - float(bias))


def activation_information(activation: Array, factor: Array, *, bins: int = 4) -> Array:
    """What each expert's activation tells about a factor: (experts,) bits.

    activation: (rows, experts), cut into `bins` parts of equal count; factor: (rows,) of integers
    """
    return np.array([corrected(quantiles(column, bins), factor) for column in activation.T])


def quantiles(values: Array, bins: int) -> Array:
    """Which of `bins` parts of equal count each value lies in; equal values lie in the same: (rows,) int64."""
    edges = np.unique(np.quantile(values, np.linspace(0, 1, bins + 1)[1:-1]))
    return np.searchsorted(edges, values, side="left")


def selectivity(information: Array) -> Array:
    """How much of what each expert tells is about a single factor: (experts,) in [0, 1].

    The largest share among the factors; an expert that tells nothing counts 0.  information: (factors, experts) bits
    """
    total = information.sum(axis=0)
    return np.asarray(np.divide(information.max(axis=0), total, out=np.zeros_like(total), where=total > 0))
