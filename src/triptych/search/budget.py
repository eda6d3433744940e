"""Upper limits on a report and a floor on quality."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

from triptych.errors import BudgetError
from triptych.measure.quality import higher_is_better
from triptych.measure.report import Report

_UNITS: Mapping[str, Mapping[str, float]] = {
    "s": {"s": 1, "ms": 1e-3, "us": 1e-6, "µs": 1e-6},
    "bytes": {"b": 1, "kb": 1e3, "mb": 1e6, "gb": 1e9, "kib": 2**10, "mib": 2**20, "gib": 2**30},
    "j": {"j": 1, "mj": 1e-3, "uj": 1e-6},
    "points": {"": 0.01, "points": 0.01, "pt": 0.01},
    "quality": {"": 1},
}
_KEYS: Mapping[str, tuple[str, str]] = {
    "p50": ("p50_s", "s"),
    "latency": ("p50_s", "s"),
    "size": ("size_bytes", "bytes"),
    "memory": ("peak_bytes", "bytes"),
    "energy": ("energy_j", "j"),
    "drop": ("max_drop", "points"),
    "quality": ("min_quality", "quality"),
}
_VALUE = re.compile(r"([0-9.]+(?:e-?[0-9]+)?)\s*([a-zµ%]*)")
LIMITS = ("p50_s", "size_bytes", "peak_bytes", "energy_j")


@dataclass(frozen=True)
class Budget:
    """What a bundle may cost and must be worth; None means no limit.

    min_quality: the worst quality allowed; where lower is better (mae), the largest error
    max_drop: largest loss against the reference, in the metric's units (0.005 is half a point of accuracy)
    shares:   limits as shares of what the reference costs, by field name, until `against` resolves them
    """

    p50_s: float | None = None
    size_bytes: float | None = None
    peak_bytes: float | None = None
    energy_j: float | None = None
    max_drop: float | None = 0.005
    min_quality: float | None = None
    shares: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        values = {name: getattr(self, name) for name in (*LIMITS, "max_drop", "min_quality")}
        for name, value in {**values, **self.shares}.items():
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise BudgetError(f"{name} must be a number of at least zero, got {value}")
        if unknown := self.shares.keys() - set(LIMITS):
            raise BudgetError(f"shares of unknown limits {sorted(unknown)}; known are {list(LIMITS)}")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read 'p50=5ms,size=2MB,memory=40MB,drop=0.5'; 'p50=10%' is a share of the reference's.

        Raises BudgetError.
        """
        values: dict[str, float] = {}
        shares: dict[str, float] = {}
        for part in filter(None, (p.strip() for p in text.split(","))):
            key, _, value = part.partition("=")
            if key not in _KEYS:
                raise BudgetError(f"unknown limit {key!r} in {text!r}; known are {sorted(_KEYS)}")
            name, kind = _KEYS[key]
            number, share = _read(key, value.strip().lower(), _UNITS[kind], shares=name in LIMITS)
            (shares if share else values)[name] = number
        return cls(**values, shares=shares)

    def against(self, reference: Report) -> Budget:
        """The same limits with every share resolved.  Raises BudgetError where the reference was not measured."""
        found: dict[str, float] = {}
        for name, share in self.shares.items():
            value = getattr(reference, name)
            if value is None:
                raise BudgetError(f"{name} is limited to {share:.0%} of the reference's, but that was not measured")
            found[name] = share * value
        return dataclasses.replace(self, **found, shares={})

    @property
    def limits(self) -> dict[str, float]:
        """The upper limits that are set, by name of the report's field."""
        return {name: value for name in LIMITS if (value := getattr(self, name)) is not None}

    def excess(self, report: Report) -> dict[str, float]:
        """By how much each limit is exceeded, as a share of it; zero or less is kept.

        Raises BudgetError where a limited figure was not measured.
        """
        found = {}
        for name, limit in self.limits.items():
            value = getattr(report, name)
            if value is None:
                reason = f" ({report.energy_source})" if name == "energy_j" and report.energy_source else ""
                raise BudgetError(f"{name} is limited to {limit:g}, but it was not measured{reason}; drop that limit")
            found[name] = value / max(limit, 1e-12) - 1
        if self.max_drop is not None and report.drop is not None:
            found["drop"] = report.drop - self.max_drop
        if self.min_quality is not None and report.quality is not None:
            short = self.min_quality - report.quality
            found["quality"] = short if higher_is_better(report.metric or "") else -short
        return found


def _read(key: str, text: str, units: Mapping[str, float], *, shares: bool) -> tuple[float, bool]:
    match = _VALUE.fullmatch(text)
    if match and match[2] == "%" and shares:
        return float(match[1]) / 100, True
    if match is None or match[2] not in units:
        known = [f"{key}=5{unit}" for unit in units] + ([f"{key}=10%"] if shares else [])
        raise BudgetError(f"cannot read {key}={text!r}; write for example {' or '.join(known)}")
    return float(match[1]) * units[match[2]], False
