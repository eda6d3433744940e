"""Bundles with a gate, stage by stage: rows that the gate gives the same counts run together, on that many tokens."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triptych.schema import Schema
from triptych.system.runtime.wiring import Stage

Array = NDArray[Any]
Run = Callable[[str, Mapping[str, Array]], list[Array]]
Decide = Callable[[Mapping[str, Mapping[str, Array]]], Array]


class Seen:
    """What the stems and the gate found: x, mask, score by modality, and keep (batch, modalities) int64."""

    def __init__(self, run: Run, gate: Stage, schema: Schema, inputs: Mapping[str, Array]) -> None:
        looks = {name: run(f"{name}.stem", {name: raw}) for name, raw in inputs.items()}
        batch = len(next(iter(inputs.values())))
        feed = {}
        for key, tensor in gate.inputs.items():
            name = key.removesuffix(".summary")
            feed[key] = looks[name][3] if name in looks else np.zeros((batch, *_fixed(tensor.shape)), tensor.dtype)
        (self.keep,) = run("gate", feed)
        self.looks = {name: (x, mask, score) for name, (x, mask, score, _) in looks.items()}
        self.places = {name: place for place, name in enumerate(schema.names)}

    def best(self, name: str, rows: Array, count: int) -> dict[str, Array]:
        """The `count` best tokens of some rows: x (rows, count, dim) and mask (rows, count)."""
        x, mask, score = (part[rows] for part in self.looks[name])
        order = np.argsort(np.where(mask > 0, -score, np.inf), axis=1, kind="stable")[:, :count]
        return {"x": np.take_along_axis(x, order[:, :, None], 1), "mask": np.take_along_axis(mask, order, 1)}


def answer_gated(seen: Seen, run: Run, decide: Decide) -> Array:
    """Run the blocks of what is kept, and decide: (batch, outputs)."""
    patterns, members = np.unique(seen.keep, axis=0, return_inverse=True)
    found: list[tuple[Array, Array]] = []
    for number, pattern in enumerate(patterns.tolist()):
        rows = np.flatnonzero(members.reshape(-1) == number)
        counts = {name: pattern[seen.places[name]] for name in seen.looks}
        kept = {name: count for name, count in counts.items() if count > 0} or {next(iter(counts)): 1}
        streams = {}
        for name, count in kept.items():
            x, mask = run(f"{name}.blocks", seen.best(name, rows, count))
            streams[name] = {"x": x, "mask": mask}
        found.append((rows, decide(streams)))
    output = np.empty((len(seen.keep), found[0][1].shape[1]), found[0][1].dtype)
    for rows, answers in found:
        output[rows] = answers
    return output


def shares_of(keep: Array, schema: Schema, stages: Mapping[str, Stage]) -> list[dict[str, float]]:
    """Share of each modality's tokens that each row keeps.  keep: (batch, modalities)"""
    rows = np.clip(keep / np.asarray(_tokens(schema, stages)), 0.0, 1.0).tolist()
    return [dict(zip(schema.names, row, strict=True)) for row in rows]


def operations_of(shares: Mapping[str, float], schema: Schema, stages: Mapping[str, Stage]) -> int | None:
    """Operations of a full row that keeps these shares, from the gate's facts; None where they do not tell."""
    if "gate" not in stages:
        return None
    choices = stages["gate"].facts.get("choices")
    wanted = [round(shares[name] * count) for name, count in zip(schema.names, _tokens(schema, stages), strict=True)]
    known = (row for row in choices if isinstance(row, list)) if isinstance(choices, list) else ()
    operations = (row[-1] for row in known if row[:-1] == wanted)
    found: object = next(operations, None)
    return found if isinstance(found, int) else None


def _tokens(schema: Schema, stages: Mapping[str, Stage]) -> list[int]:
    """The largest number of each modality's tokens."""
    return [stages[f"{m.name}.stem"].outputs["x"].shape[1] or m.max_tokens for m in schema.modalities]


def _fixed(shape: tuple[int | None, ...]) -> tuple[int, ...]:
    return tuple(axis or 1 for axis in shape[1:])
