"""One candidate while it is measured: its worker, and what has been learnt so far."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triptych.errors import MeasureError
from triptych.measure.candidate import Launch
from triptych.measure.process import Worker
from triptych.measure.shapley import Orders, Subset
from triptych.schema import Schema


@dataclass
class Taken:
    """Raw findings about one candidate, before any statistics.

    names:   modalities that it reads, in the order of its schema
    outputs: (rows, outputs)
    asked:   (rows,) bool, rows that were asked again with subsets of the modalities
    orders:  orders in which the modalities join; None where not all their subsets were asked
    subsets: by the modalities that were left, (asked rows, outputs), NaN for a row that has none of them
    shares: by modality, of its tokens that each row with it used;  executed: operations of each row
    """

    names: Subset = ()
    samples_s: list[float] = field(default_factory=list)
    peak_bytes_total: int | None = None
    size_bytes: int | None = None
    bundle_bytes: int | None = None
    energy_j: float | None = None
    energy_source: str | None = None
    params: int | None = None
    flops: dict[str, int] = field(default_factory=dict)
    weight_bytes: dict[str, int] = field(default_factory=dict)
    parts_s: dict[str, list[float]] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    routers: dict[str, Any] | None = None
    outputs: NDArray[np.float64] = field(default_factory=lambda: np.empty((0, 0)))
    asked: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, bool))
    orders: Orders | None = None
    subsets: dict[Subset, NDArray[np.float64]] = field(default_factory=dict)
    shares: dict[str, list[float]] = field(default_factory=dict)
    executed: list[float] = field(default_factory=list)


class Lane:
    """A candidate's worker, asked and checked.

    schema: what the candidate reads
    """

    def __init__(self, name: str, launch: Launch, schema: Schema) -> None:
        self.name = name
        self.command = launch.command
        self.schema = launch.schema or schema
        self.taken = Taken(self.schema.names, size_bytes=launch.size_bytes, bundle_bytes=launch.bundle_bytes)
        self._can: frozenset[str] = frozenset()
        self._worker: Worker | None = None

    def load(self, worker: Worker, threads: int) -> None:
        """Let a fresh worker load the candidate."""
        self._worker = worker
        self._can = frozenset(self._ask("load", threads=threads).get("can") or ())

    @property
    def pid(self) -> int:
        """Process number of the worker."""
        return self._running.pid

    def can(self, ability: str) -> bool:
        """Whether the worker answers 'without', 'subsets', 'parts' or 'describe'."""
        return ability in self._can

    def time(self, examples: Path, rows: int, *, start: int, repeat: int, warmup: int) -> list[float]:
        """Seconds of `repeat` predictions."""
        answer = self._ask("time", examples=str(examples), rows=rows, start=start, repeat=repeat, warmup=warmup)
        return self._seconds(answer.get("samples_s"), repeat)

    def predict(self, examples: Path, labels: Sequence[str], *, without: Sequence[str] = ()) -> NDArray[np.float64]:
        """Outputs: (rows, outputs), a row of NaN where leaving modalities out left nothing to predict from.

        labels: what to call each row in an error
        """
        gone = None if not without else without[0] if len(without) == 1 else list(without)
        answer = self._ask("predict", examples=str(examples), rows=len(labels), without=gone)
        found = answer.get("outputs")
        if not isinstance(found, list) or len(found) != len(labels):
            raise self._error(f"should have given a list of {len(labels)} outputs, gave {str(found)[:100]}")
        width = self.schema.outputs or len(found[0] or ())  # retrieval: the candidate's own
        outputs = np.full((len(labels), width), np.nan)
        for row, output in enumerate(found):
            if output is None and without:
                continue
            if not _finite(output) or len(output) != width:
                expected = f"expected {width} finite numbers"
                raise self._error(f"gave the output {output} for row {labels[row]}, {expected}")
            outputs[row] = output
        if without is None:
            self._take_down(answer.get("spent") or ())
        return outputs

    def _take_down(self, spent: Any) -> None:
        """What each row used of its modalities, and what that cost."""
        for one in spent:
            shares = _object(_object(one).get("shares"))
            if not _finite([*shares.values()]):
                raise self._error(f"should have given shares of tokens, gave {str(one)[:100]}")
            for name, share in shares.items():
                self.taken.shares.setdefault(str(name), []).append(float(share))
            if one.get("flops") is not None:
                self.taken.executed.append(float(one["flops"]))

    def stages(self, examples: Path, row: int, repeat: int) -> dict[str, list[float]]:
        """Seconds of every stage; empty if the worker does not know them."""
        if not self.can("parts"):
            return {}
        answer = self._ask("parts", examples=str(examples), row=row, repeat=repeat)
        return {stage: self._seconds(s) for stage, s in _object(answer.get("parts_s")).items()}

    def describe(self) -> None:
        """Take down what the worker says of the network, if it can."""
        if not self.can("describe"):
            return
        answer = self._ask("describe")
        params = answer.get("params")
        self.taken.params = None if params is None else int(params)
        self.taken.flops = {str(k): int(v) for k, v in _object(answer.get("flops")).items()}
        self.taken.weight_bytes = {str(k): int(v) for k, v in _object(answer.get("weight_bytes")).items()}
        self.taken.routers = dict(_object(answer.get("routers"))) or None
        self.taken.versions = {str(k): str(v) for k, v in _object(answer.get("versions")).items()}

    @property
    def _running(self) -> Worker:
        if self._worker is None:
            raise MeasureError(f"candidate {self.name!r} was not loaded")
        return self._worker

    def _ask(self, op: str, **request: Any) -> dict[str, Any]:
        return self._running.ask(op, **request)

    def _seconds(self, samples: Any, number: int | None = None) -> list[float]:
        if not _finite(samples) or min(samples, default=0) < 0 or len(samples) != (number or len(samples)):
            raise self._error(f"should have given {number or 'some'} times in seconds, gave {str(samples)[:100]}")
        return [float(s) for s in samples]

    def _error(self, what: str) -> MeasureError:
        return MeasureError(f"the worker of {self.name!r} {what}")


def _finite(values: Any) -> bool:
    return isinstance(values, Sequence) and all(
        isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v) for v in values
    )


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
