"""How figures read: one way for each unit, in the page, the tables and the plots."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

NOT_MEASURED = "–"
NBSP = "\N{NO-BREAK SPACE}"  # between a number and its unit
LOWER_IS_BETTER = frozenset({"mae"})
SHARES = frozenset({"accuracy", "acc2", "recall_at_1", "recall_at_10"})

METRICS = {
    "accuracy": "accuracy",
    "auroc": "AUROC",
    "acc2": "sign accuracy",
    "mae": "mean absolute error",
    "recall_at_1": "recall at 1",
    "recall_at_10": "recall at 10",
}


def number(value: float | None, digits: int = 3) -> str:
    """`digits` significant digits, without an exponent for everyday sizes."""
    if value is None:
        return NOT_MEASURED
    if value == 0 or 1e-4 <= abs(value) < 1e7:
        text = f"{value:.{digits}g}" if abs(value) < 10**digits else f"{value:,.0f}"
        return minus(text)
    return minus(f"{value:.{digits - 1}e}")


def minus(text: str) -> str:
    """Use the minus sign instead of a hyphen."""
    return text.replace("-", "−")


def seconds(value: float | None) -> str:
    """A duration in the unit that suits it."""
    if value is None:
        return NOT_MEASURED
    if value >= 90:
        return f"{value / 60:.1f}{NBSP}min"
    for scale, unit in ((1, "s"), (1e-3, "ms")):
        if abs(value) >= scale:
            return f"{number(value / scale)}{NBSP}{unit}"
    return f"{number(value / 1e-6)}{NBSP}µs"


def size(value: float | None) -> str:
    """Bytes in decimal units, as discs and budgets count them."""
    if value is None:
        return NOT_MEASURED
    for scale, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if abs(value) >= scale:
            return f"{number(value / scale)}{NBSP}{unit}"
    return f"{value:.0f}{NBSP}B"


def count(value: float | None) -> str:
    """A count of parameters or operations."""
    if value is None:
        return NOT_MEASURED
    for scale, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= scale:
            return f"{number(value / scale)}{NBSP}{unit}"
    return f"{value:.0f}"


def joules(value: float | None) -> str:
    """An energy."""
    if value is None:
        return NOT_MEASURED
    return f"{number(value)}{NBSP}J" if abs(value) >= 0.1 else f"{number(value * 1e3)}{NBSP}mJ"


def quality(value: float | None, metric: str) -> str:
    """A quality in its metric's own form: a share in percent, the others as they are."""
    if value is None:
        return NOT_MEASURED
    return f"{100 * value:.1f}{NBSP}%" if metric in SHARES else minus(f"{value:.3f}")


def detail(name: str, value: float | None) -> str:
    """One of a report's details: a recall in percent, a rank as it is."""
    return quality(value, "recall_at_1") if "recall" in name else number(value)


def difference(value: float | None, metric: str) -> str:
    """A signed difference of two qualities."""
    if value is None:
        return NOT_MEASURED
    sign = "+" if value > 0 else "−" if value < 0 else "±"
    return f"{sign}{100 * abs(value):.1f}{NBSP}points" if metric in SHARES else f"{sign}{abs(value):.3f}"


def interval(pair: Sequence[float | None] | None, one: Any) -> str:
    """An interval, each end written by `one`."""
    if not pair or len(pair) != 2 or None in pair:
        return ""
    return f"{one(pair[0])} … {one(pair[1])}"


def times(before: float | None, after: float | None) -> str:
    """How much smaller or larger `after` is, in words."""
    if not before or not after:
        return ""
    ratio = before / after
    if 0.995 < ratio < 1.005:
        return "unchanged"
    return f"{number(ratio)}× less" if ratio > 1 else f"{number(1 / ratio)}× more"


def change(before: float | None, after: float | None) -> str:
    """A relative change in percent."""
    if not before or after is None:
        return ""
    percent = 100 * (after / before - 1)
    return f"±0{NBSP}%" if abs(percent) < 0.5 else minus(f"{percent:+.0f}{NBSP}%")
