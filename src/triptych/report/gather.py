"""From a model's raw outputs to what the report shows of its answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from triptych.measure import quality, retrieval
from triptych.report.inputs import drawable
from triptych.schema import Schema, Task

if TYPE_CHECKING:
    from triptych.data.dataset import Split

Array = NDArray[Any]
MAX_WRONG_SHARE = 0.5


def answers(outputs: Array, targets: Array, schema: Schema) -> dict[str, Any]:
    """`RunRecord.confusion`, over the rows whose target is known.

    outputs: (rows, classes) scores, (rows, 1) values or (rows, 2 · embedding); targets: as in the split
    """
    known = quality.known(targets, schema)
    return _ANSWERS[schema.task](outputs[known], targets[known], schema)


def examples(split: Split, outputs: Array, schema: Schema, *, count: int = 12) -> list[dict[str, Any]]:
    """`RunRecord.examples`: spread evenly over the split, with up to half of them wrong answers.

    outputs: (rows, outputs), in the order of the split
    """
    known = np.flatnonzero(quality.known(np.asarray(split.targets), schema))
    judged = _JUDGED[schema.task](split, known, outputs[known], schema)
    right = np.array([one.get("right", True) for one in judged], bool)
    wrong = _spread(np.flatnonzero(~right), int(count * MAX_WRONG_SHARE))
    chosen = np.sort(np.concatenate([wrong, _spread(np.flatnonzero(right), count - len(wrong))]))
    rows = ((int(known[i]), judged[i]) for i in chosen)
    return [{"id": str(split.ids[row]), "inputs": _inputs(split, row, schema), **one} for row, one in rows]


def _spread(rows: Array, count: int) -> Array:
    """Up to `count` of the rows, at equal distances."""
    return rows[np.unique(np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(int))] if count else rows[:0]


def _inputs(split: Split, row: int, schema: Schema) -> Mapping[str, Any]:
    decoded, raw = split.example(row), split.raw(row)
    values = {m.name: raw[m.name] if m.kind == "text" else decoded[m.name] for m in schema.modalities}
    return {m.name: drawable(m, values[m.name]) for m in schema.modalities}


def _confusion(outputs: Array, targets: Array, schema: Schema) -> dict[str, Any]:
    counts = np.zeros((len(schema.classes), len(schema.classes)), np.int64)
    np.add.at(counts, (targets, outputs.argmax(axis=1)), 1)
    return {"classes": list(schema.classes), "counts": counts.tolist()}


def _values(outputs: Array, targets: Array, _schema: Schema) -> dict[str, Any]:
    return {"true": targets.tolist(), "predicted": outputs[:, 0].tolist()}


def _directions(outputs: Array, targets: Array, schema: Schema) -> dict[str, Any]:
    found = retrieval.details(outputs, targets, schema.pair)
    figures = ("recall_at_1", "recall_at_10", "median_rank")
    directions = [
        {"query": one, "answer": other, **{key: found[f"{one}_to_{other}_{key}"] for key in figures}}
        for one, other in (schema.pair, schema.pair[::-1])
    ]
    return {"directions": directions, "rows": len(outputs)}


_ANSWERS: dict[Task, Callable[[Array, Array, Schema], dict[str, Any]]] = {
    "classification": _confusion,
    "regression": _values,
    "retrieval": _directions,
}


def _judged_classes(split: Split, rows: Array, outputs: Array, schema: Schema) -> list[dict[str, Any]]:
    given = outputs.argmax(axis=1)
    chances = np.exp(outputs - outputs.max(axis=1, keepdims=True))
    sure = chances.max(axis=1) / chances.sum(axis=1)
    return [
        {
            "true": schema.classes[true],
            "predicted": schema.classes[answer],
            "confidence": float(share),
            "right": bool(true == answer),
        }
        for true, answer, share in zip(split.targets[rows], given, sure, strict=True)
    ]


def _judged_values(split: Split, rows: Array, outputs: Array, _schema: Schema) -> list[dict[str, Any]]:
    pairs = zip(split.targets[rows], outputs[:, 0], strict=True)
    return [{"true": float(true), "predicted": float(value)} for true, value in pairs]


def _judged_searches(split: Split, rows: Array, outputs: Array, schema: Schema) -> list[dict[str, Any]]:
    """What each query finds first; a text by its words, anything else by its row's id."""
    side = schema[schema.pair[1]]

    def shown(row: int) -> str:
        return str(split.raw(row)[side.name]) if side.kind == "text" else str(split.ids[row])

    first = rows[retrieval.first_answers(outputs)[:, 0]]
    right = retrieval.ranks(outputs, np.asarray(split.targets)[rows])[:, 0] == 1
    return [
        {"true": shown(int(row)), "predicted": shown(int(found)), "right": bool(hit)}
        for row, found, hit in zip(rows, first, right, strict=True)
    ]


_JUDGED: dict[Task, Callable[[Split, Array, Array, Schema], list[dict[str, Any]]]] = {
    "classification": _judged_classes,
    "regression": _judged_values,
    "retrieval": _judged_searches,
}
