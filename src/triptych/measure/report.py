"""One measurement of one candidate, as plain data."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from triptych.errors import MeasureError

Interval = tuple[float, float]

MEANING: Mapping[str, str] = {
    "metric": "name of the quality metric of the task",
    "quality": "the metric over the rows of the split whose target is known",
    "quality_interval": "95 % bootstrap interval of the quality, resampling rows",
    "details": "more figures of the task by name: for retrieval, recall and the median rank in each direction",
    "rows": "rows that the quality was computed over",
    "ignored": "rows left out of the quality because their target is unknown (acc2: or zero)",
    "drop": "how much worse than the first candidate on the same rows, in the metric's units; positive is worse",
    "drop_interval": "95 % bootstrap interval of the drop, resampling rows for both candidates together",
    "drop_p": "p-value of the paired test of no difference: exact McNemar for accuracy and acc2, else a permutation",
    "loyalty": "share of rows where the answer (for retrieval: what is found first) agrees with the first candidate's",
    "p50_s": "median seconds of one prediction: one example, decoded inputs to output, in a process of its own",
    "p95_s": "95th percentile of the seconds of one prediction",
    "p50_ratio": "median over rounds of (median seconds in this round / the first candidate's in the same round)",
    "p50_ratio_interval": "95 % bootstrap interval of the ratio, resampling rounds",
    "samples_s": "every timed prediction in seconds, in the order taken, round after round",
    "rounds": "interleaved rounds; each holds the same number of samples",
    "threads": "threads given to the engine",
    "peak_bytes": "peak resident memory after loading and the timed predictions, above the floor",
    "peak_bytes_total": "peak resident memory of the whole process after loading and the timed predictions",
    "floor_bytes": "peak resident memory of a bare Python process that has imported numpy",
    "size_bytes": "bytes that must be shipped to run: graphs, weights, tokenizers and manifest; of a part, its weights",
    "bundle_bytes": "bytes of the whole bundle folder, with its golden vectors and model card",
    "flops": "arithmetic operations of one prediction, counted and not timed; with a gate the mean of what the rows "
    "execute; this is not speed",
    "params": "number of weights",
    "routers": "of each layer of experts: load (share of the work by expert), entropy (0 sure, 1 undecided), collapse "
    "(0 even, 1 one does all), pairs (per token); over the last timed examples, of a bundle over its golden ones",
    "energy_j": "joules per prediction",
    "energy_source": "where the joules come from, or why there are none",
    "worth": "of a modality: how much better the quality is with it than without it, on the same rows",
    "worth_interval": "95 % bootstrap interval of the worth, resampling rows",
    "shapley": "of a modality: its Shapley value: its mean gain in quality over the orders in which they can join",
    "shapley_interval": "95 % bootstrap interval of it, resampling rows, and orders where they were drawn",
    "subsets": "quality by the modalities that are there, joined by +, on the rows asked for worth; '' is nothing",
    "kept": "of a modality: mean share of its tokens that a gate lets through, over the rows that have it",
    "skipped": "of a modality: share of the rows that have it in which a gate leaves it out",
    "environment": "machine, software and dataset that the figures hold for",
    "predictions": "file of the raw outputs, beside the report",
    "parts": "the same figures per stage ('image.encode', 'decide', 'fused') and per modality ('image')",
}


@dataclass(frozen=True, slots=True)
class Report:
    """One measurement; None means not measured, never zero.  `MEANING` says what each field is."""

    metric: str | None = None
    quality: float | None = None
    quality_interval: Interval | None = None
    details: Mapping[str, float] = field(default_factory=dict)
    rows: int | None = None
    ignored: int | None = None
    drop: float | None = None
    drop_interval: Interval | None = None
    drop_p: float | None = None
    loyalty: float | None = None
    p50_s: float | None = None
    p95_s: float | None = None
    p50_ratio: float | None = None
    p50_ratio_interval: Interval | None = None
    samples_s: tuple[float, ...] | None = field(default=None, repr=False)
    rounds: int | None = None
    threads: int | None = None
    peak_bytes: int | None = None
    peak_bytes_total: int | None = None
    floor_bytes: int | None = None
    size_bytes: int | None = None
    bundle_bytes: int | None = None
    flops: int | None = None
    params: int | None = None
    routers: Mapping[str, Any] | None = None
    energy_j: float | None = None
    energy_source: str | None = None
    worth: float | None = None
    worth_interval: Interval | None = None
    shapley: float | None = None
    shapley_interval: Interval | None = None
    subsets: Mapping[str, float] = field(default_factory=dict)
    kept: float | None = None
    skipped: float | None = None
    predictions: str | None = None
    environment: Mapping[str, Any] = field(default_factory=dict, repr=False)
    parts: Mapping[str, Report] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, without what was not measured."""
        record = {f.name: _plain(getattr(self, f.name)) for f in dataclasses.fields(self)}
        return {k: v for k, v in record.items() if v is not None and v != {}}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Self:
        """Read what `to_dict` wrote.  Raises MeasureError on unknown keys and ill-typed values."""
        if unknown := record.keys() - _READERS.keys():
            raise MeasureError(f"unknown keys {sorted(unknown)} in a report; known are {sorted(_READERS)}")
        return cls(**{k: _READERS[k](k, v) for k, v in record.items()})


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: v.to_dict() if isinstance(v, Report) else v for k, v in value.items()}
    return list(value) if isinstance(value, tuple) else value


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise MeasureError(f"report field {name!r} must be a finite number, got {value!r}")
    return value


def _count(name: str, value: Any) -> int:
    number = _number(name, value)
    if number != int(number):
        raise MeasureError(f"report field {name!r} must be a whole number, got {value!r}")
    return int(number)


def _numbers(name: str, value: Any) -> tuple[float, ...]:
    if not isinstance(value, list | tuple):
        raise MeasureError(f"report field {name!r} must be a list of numbers, got {value!r}")
    return tuple(_number(name, v) for v in value)


def _interval(name: str, value: Any) -> tuple[float, ...]:
    numbers = _numbers(name, value)
    if len(numbers) != 2 or numbers[0] > numbers[1]:
        raise MeasureError(f"report field {name!r} must be [low, high], got {value!r}")
    return numbers


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise MeasureError(f"report field {name!r} must be text, got {value!r}")
    return value


def _mapping(name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise MeasureError(f"report field {name!r} must be an object, got {value!r}")
    return dict(value)


def _figures(name: str, value: Any) -> dict[str, float]:
    return {key: _number(f"{name}.{key}", one) for key, one in _mapping(name, value).items()}


def _routers(name: str, value: Any) -> dict[str, Any]:
    found = {str(layer): _mapping(f"{name}.{layer}", one) for layer, one in _mapping(name, value).items()}
    for layer, one in found.items():
        if one.keys() != {"load", "entropy", "collapse", "pairs"}:
            raise MeasureError(
                f"report field {name}.{layer} must hold load, entropy, collapse, pairs; got {sorted(one)}"
            )
        for key, figure in one.items():
            (_numbers if key == "load" else _number)(f"{name}.{layer}.{key}", figure)
    return found


def _parts(name: str, value: Any) -> dict[str, Report]:
    return {str(k): Report.from_dict(_mapping(name, v)) for k, v in _mapping(name, value).items()}


_BY_TYPE: Mapping[str, Callable[[str, Any], Any]] = {
    "float | None": _number,
    "int | None": _count,
    "str | None": _text,
    "Interval | None": _interval,
    "tuple[float, ...] | None": _numbers,
    "Mapping[str, Any]": _mapping,
    "Mapping[str, Any] | None": _routers,
    "Mapping[str, float]": _figures,
    "Mapping[str, Report]": _parts,
}
_READERS = {f.name: _BY_TYPE[str(f.type)] for f in dataclasses.fields(Report)}
