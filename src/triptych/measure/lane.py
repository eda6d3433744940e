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
from triptych.schema import Schema


@dataclass
class Taken:
    """Raw findings about one candidate, before any statistics.

    outputs: (rows, outputs)
    without: by the modality left out, (rows, outputs), NaN for a row that has nothing else
    """

    samples_s: list[float] = field(default_factory=list)
    peak_bytes_total: int | None = None
    size_bytes: int | None = None
    bundle_bytes: int | None = None
    energy_j: float | None = None
    energy_source: str | None = None
    params: int | None = None
    flops: dict[str, int] = field(default_factory=dict)
    parts_s: dict[str, list[float]] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    routers: dict[str, Any] | None = None
    outputs: NDArray[np.float64] = field(default_factory=lambda: np.empty((0, 0)))
    without: dict[str, NDArray[np.float64]] = field(default_factory=dict)


class Lane:
    """A candidate's worker, asked and checked.

    schema: what the candidate reads
    """

    def __init__(self, name: str, launch: Launch, schema: Schema) -> None:
        self.name = name
        self.command = launch.command
        self.schema = launch.schema or schema
        self.taken = Taken(size_bytes=launch.size_bytes, bundle_bytes=launch.bundle_bytes)
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
        """Whether the worker answers 'without', 'parts' or 'describe'."""
        return ability in self._can

    def time(self, examples: Path, rows: int, *, start: int, repeat: int, warmup: int) -> list[float]:
        """Seconds of `repeat` predictions."""
        answer = self._ask("time", examples=str(examples), rows=rows, start=start, repeat=repeat, warmup=warmup)
        return self._seconds(answer.get("samples_s"), repeat)

    def predict(self, examples: Path, labels: Sequence[str], *, without: str | None = None) -> NDArray[np.float64]:
        """Outputs: (rows, outputs), a row of NaN where leaving a modality out left nothing to predict from.

        labels: what to call each row in an error
        """
        found = self._ask("predict", examples=str(examples), rows=len(labels), without=without).get("outputs")
        if not isinstance(found, list) or len(found) != len(labels):
            raise self._error(f"should have given a list of {len(labels)} outputs, gave {str(found)[:100]}")
        width = self.schema.outputs or len(found[0] or ())  # retrieval: the candidate's own
        outputs = np.full((len(labels), width), np.nan)
        for row, output in enumerate(found):
            if output is None and without is not None:
                continue
            if not _finite(output) or len(output) != width:
                expected = f"expected {width} finite numbers"
                raise self._error(f"gave the output {output} for row {labels[row]}, {expected}")
            outputs[row] = output
        return outputs

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
