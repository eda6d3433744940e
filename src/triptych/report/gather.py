"""From a model's raw outputs to what the report shows of its answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from triptych.report.inputs import drawable
from triptych.schema import Schema

if TYPE_CHECKING:
    from triptych.data.dataset import Split

Array = NDArray[Any]
MAX_WRONG_SHARE = 0.5


def answers(outputs: Array, targets: Array, schema: Schema) -> dict[str, Any]:
    """`RunRecord.confusion`, over the rows whose target is known.

    outputs: (rows, classes) scores, or (rows, 1) values; targets: (rows,)
    """
    known = _known(targets, schema)
    if schema.task == "regression":
        return {"true": targets[known].tolist(), "predicted": outputs[known, 0].tolist()}
    counts = np.zeros((len(schema.classes), len(schema.classes)), np.int64)
    np.add.at(counts, (targets[known], outputs[known].argmax(axis=1)), 1)
    return {"classes": list(schema.classes), "counts": counts.tolist()}


def examples(split: Split, outputs: Array, schema: Schema, *, count: int = 12) -> list[dict[str, Any]]:
    """`RunRecord.examples`: spread evenly over the split, with up to half of them wrong answers.

    outputs: (rows, outputs), in the order of the split
    """
    targets = np.asarray(split.targets)
    known = np.flatnonzero(_known(targets, schema))
    if schema.task == "regression":
        return [_example(split, int(row), outputs[row], schema) for row in _spread(known, count)]
    right = outputs[known].argmax(axis=1) == targets[known]
    wrong = _spread(known[~right], int(count * MAX_WRONG_SHARE))
    rows = np.sort(np.concatenate([wrong, _spread(known[right], count - len(wrong))]))
    return [_example(split, int(row), outputs[row], schema) for row in rows]


def _known(targets: Array, schema: Schema) -> NDArray[np.bool_]:
    return np.isfinite(targets) if schema.task == "regression" else targets >= 0


def _spread(rows: Array, count: int) -> Array:
    """Up to `count` of the rows, at equal distances."""
    return rows[np.unique(np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(int))] if count else rows[:0]


def _example(split: Split, row: int, output: Array, schema: Schema) -> dict[str, Any]:
    record: dict[str, Any] = {"id": str(split.ids[row]), "inputs": _inputs(split, row, schema)}
    if schema.task == "regression":
        return {**record, "true": float(split.target(row)), "predicted": float(output[0])}
    true, answer = int(split.target(row)), int(output.argmax())
    chances = np.exp(output - output.max())
    return {
        **record,
        "true": schema.classes[true],
        "predicted": schema.classes[answer],
        "confidence": float(chances[answer] / chances.sum()),
        "right": true == answer,
    }


def _inputs(split: Split, row: int, schema: Schema) -> Mapping[str, Any]:
    decoded, raw = split.example(row), split.raw(row)
    values = {m.name: raw[m.name] if m.kind == "text" else decoded[m.name] for m in schema.modalities}
    return {m.name: drawable(m, values[m.name]) for m in schema.modalities}
