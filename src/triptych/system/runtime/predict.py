"""Answers in the task's own words, and the choice of an operating point."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import repeat
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triptych.errors import BudgetError
from triptych.schema import Schema, Task
from triptych.system.runtime.wiring import Point


@dataclass(frozen=True, slots=True)
class Prediction:
    """One answer and how it came about.

    label, probabilities: classification; probabilities by class, in output order
    value: regression, in target units
    embeddings: retrieval, a unit vector of each side that the row has
    used: modalities that the answer rests on; missing: those of the schema that the row did not have
    engine: graphs that ran: fused, staged or cascade; point: the operating point that was asked for or chosen
    seconds: decoding and running; a row of `predict_many` has its share of its batch
    deadline_met: whether the point was measured to be fast enough; None without a deadline
    shares: of each modality's tokens that were read, where a gate decides; empty where none does
    """

    label: str | None
    value: float | None
    probabilities: Mapping[str, float]
    used: tuple[str, ...]
    missing: tuple[str, ...]
    engine: str
    point: str | None
    seconds: float
    deadline_met: bool | None = None
    embeddings: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    shares: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Answer:
    """What the graphs gave.

    output: (batch, outputs); used: modality names of each row
    shares: of each row, by modality, as a gate chose; empty without a gate
    """

    output: NDArray[Any]
    used: tuple[tuple[str, ...], ...]
    engine: str
    shares: tuple[Mapping[str, float], ...] = ()


def softmax(output: NDArray[Any]) -> NDArray[np.float64]:
    """Probabilities of logits.  output: (batch, classes)"""
    shifted = np.exp(output.astype(np.float64) - output.max(axis=1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True))


def predictions(
    schema: Schema, answer: Answer, given: Collection[str], *, point: str | None, met: bool | None, seconds: float
) -> list[Prediction]:
    """One prediction per row.  given: modalities that the rows have; seconds: of one row"""
    missing = tuple(name for name in schema.names if name not in given)
    say = _SAY[schema.task]
    nothing: Iterable[Mapping[str, float]] = repeat({})
    return [
        Prediction(
            **{"label": None, "value": None, "probabilities": {}, **say(schema, output, given)},
            used=used,
            missing=missing,
            engine=answer.engine,
            point=point,
            seconds=seconds,
            deadline_met=met,
            shares={name: share for name, share in shares.items() if name in given},
        )
        for output, used, shares in zip(answer.output, answer.used, answer.shares or nothing, strict=False)
    ]


def _class(schema: Schema, output: NDArray[Any], _given: Collection[str]) -> dict[str, Any]:
    (chances,) = softmax(output[None])
    named = dict(zip(schema.classes, chances.tolist(), strict=True))
    return {"label": schema.classes[int(chances.argmax())], "probabilities": named}


def _value(_schema: Schema, output: NDArray[Any], _given: Collection[str]) -> dict[str, Any]:
    return {"value": float(output[0])}


def _embeddings(schema: Schema, output: NDArray[Any], given: Collection[str]) -> dict[str, Any]:
    sides = zip(schema.pair, np.split(output, 2), strict=True)
    return {"embeddings": {name: tuple(side.tolist()) for name, side in sides if name in given}}


_SAY: dict[Task, Callable[[Schema, NDArray[Any], Collection[str]], dict[str, Any]]] = {
    "classification": _class,
    "regression": _value,
    "retrieval": _embeddings,
}


def choose_point(
    points: Collection[Point], present: Collection[str], deadline_s: float, *, higher: bool
) -> tuple[Point, bool]:
    """The best point measured to meet the deadline, else the fastest; and whether the deadline is met.

    present: modalities that the row has; higher: whether more quality is better
    Raises BudgetError where no point for these modalities was measured.
    """
    measured = [p for p in points if p.p50_s is not None and set(p.modalities) <= set(present)]
    if not measured:
        raise BudgetError(
            f"a deadline needs operating points with a measured p50_s for {sorted(present)}, this bundle has none; "
            "leave deadline_s out or export with measured points"
        )
    fitting = [p for p in measured if _seconds(p) <= deadline_s]
    if not fitting:
        return min(measured, key=_seconds), False
    return max(fitting, key=lambda p: (_rank(p, higher=higher), -_seconds(p))), True


def _seconds(point: Point) -> float:
    return float("inf") if point.p50_s is None else point.p50_s


def _rank(point: Point, *, higher: bool) -> float:
    if point.quality is None:
        return float("-inf")
    return point.quality if higher else -point.quality
