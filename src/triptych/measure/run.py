"""Measure candidates against each other: a fresh process each, interleaved rounds, the same examples."""

from __future__ import annotations

import dataclasses
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from triptych.data.collate import collate
from triptych.errors import MeasureError
from triptych.measure.assemble import report_of
from triptych.measure.candidate import Peer, launch
from triptych.measure.clock import percentile
from triptych.measure.energy import Rapl, energy_of, find_rapl
from triptych.measure.environment import environment
from triptych.measure.examples import write_examples
from triptych.measure.lane import Lane
from triptych.measure.memory import floor_bytes, peak_bytes
from triptych.measure.process import Worker
from triptych.measure.report import Report
from triptych.measure.shapley import Orders, Subset
from triptych.schema import Schema

if TYPE_CHECKING:
    from triptych.data.dataset import Dataset, Split
    from triptych.model import Multimodal

_TIMED_EXAMPLES = 32
_SHARD = 128
_WORTH_ROWS = 1024  # about as many rows tell what a modality is worth
_STAGE_REPEAT = 20


def measure(
    candidates: Mapping[str, str | Path | Multimodal | Peer],
    data: Dataset,
    *,
    split: str = "test",
    repeat: int = 50,
    warmup: int = 5,
    threads: int = 1,
    rounds: int = 25,
    parts: bool = True,
    folder: str | Path | None = None,
    timeout_s: float = 600.0,
    seed: int = 0,
) -> dict[str, Report]:
    """Measure quality, latency, memory, size and energy; the first candidate is what the others are compared to.

    candidates: by name, each a bundle folder, a saved model folder, a network, or a `Peer`
    repeat:     timed predictions per candidate, rounded up to a multiple of `rounds`
    warmup:     untimed predictions before the first round; each later round starts with one
    rounds:     how often the candidates take turns, at most `repeat` times
    parts:      also time every stage, and repeat the quality pass on up to about 1,000 rows with the subsets of the
                modalities, all of up to four, to learn what each is worth (not for retrieval: one side finds nothing)
    folder:     where to keep the raw outputs, one `.npz` per candidate
    timeout_s:  longest that a worker may take for one answer

    Raises MeasureError when a worker fails or an output is not finite.
    """
    _check(candidates, data, split, {"repeat": repeat, "threads": threads, "rounds": rounds})
    rows, rounds = data.splits[split], min(rounds, repeat)
    each = -(-repeat // rounds)
    context = {
        **environment(threads=threads),
        "dataset": {"name": data.name, "fingerprint": data.fingerprint, "split": split, "rows": len(rows)},
        "protocol": {"rounds": rounds, "each": each, "warmup": warmup, "seed": seed, "order": list(candidates)},
    }
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="triptych-measure-")))
        lanes = _lanes(candidates, data.schema, scratch)
        timed = _Timed(rows, lanes, scratch)
        for lane in lanes:
            worker = Worker(lane.name, lane.command, threads=threads, timeout_s=timeout_s)
            lane.load(stack.enter_context(worker), threads)
        _take_turns(lanes, timed, rounds=rounds, each=each, warmup=warmup)
        for lane in lanes:
            lane.taken.peak_bytes_total = peak_bytes(lane.pid)
        _describe(lanes, timed, find_rapl(), stages=parts)
        _answer(lanes, rows, scratch, worth=parts, seed=seed)
    floor, first = floor_bytes(), lanes[0].taken
    reports: dict[str, Report] = {}
    for lane in lanes:
        found = report_of(
            lane.taken, first, rows.targets, data.schema, rounds=rounds, threads=threads, floor_bytes=floor, seed=seed
        )
        kept = None if folder is None else _keep(Path(folder), len(reports), lane, rows)
        own = {**context, "worker": lane.taken.versions}
        reports[lane.name] = dataclasses.replace(found, environment=own, predictions=kept)
    return reports


class _Timed:
    """The few examples that are timed, on disk once per schema."""

    def __init__(self, rows: Split, lanes: Sequence[Lane], scratch: Path) -> None:
        numbers = np.unique(np.linspace(0, len(rows) - 1, min(_TIMED_EXAMPLES, len(rows))).astype(int))
        self.rows = len(numbers)
        self.folders = _write(rows, numbers, lanes, scratch / "timed")

    def fullest(self, schema: Schema) -> int:
        """The first row that has the most modalities."""
        folder = self.folders[schema]
        return max(range(self.rows), key=lambda row: len(list(folder.glob(f"{row}.*.npy"))))

    def time(self, lane: Lane, *, start: int = 0, repeat: int, warmup: int = 0) -> list[float]:
        """Seconds of predictions of the examples in turn."""
        folder = self.folders[lane.schema]
        return lane.time(folder, self.rows, start=start % self.rows, repeat=repeat, warmup=warmup)


def _check(candidates: Mapping[str, object], data: Dataset, split: str, counts: Mapping[str, int]) -> None:
    if not candidates:
        raise MeasureError("nothing to measure: give at least one candidate by name")
    if split not in data.splits or not len(data.splits[split]):
        raise MeasureError(f"no rows in split {split!r}; this dataset has {sorted(data.splits)}")
    if wrong := {name: count for name, count in counts.items() if count < 1}:
        raise MeasureError(f"expected at least 1, got {wrong}")


def _lanes(candidates: Mapping[str, str | Path | Multimodal | Peer], schema: Schema, scratch: Path) -> list[Lane]:
    folders = (scratch / f"model-{number}" for number in range(len(candidates)))
    return [Lane(n, launch(n, c, folder), schema) for (n, c), folder in zip(candidates.items(), folders, strict=True)]


def _take_turns(lanes: Sequence[Lane], timed: _Timed, *, rounds: int, each: int, warmup: int) -> None:
    """Interleave A B A B: in every round each candidate predicts the same examples."""
    for turn in range(rounds):
        for lane in lanes:
            lead = max(1, warmup) if turn == 0 else 1
            lane.taken.samples_s += timed.time(lane, start=turn * each, repeat=each, warmup=lead)


def _describe(lanes: Sequence[Lane], timed: _Timed, meter: Rapl | str, *, stages: bool) -> None:
    for lane in lanes:
        lane.taken.energy_j, lane.taken.energy_source = _energy(lane, timed, meter)
        lane.describe()
        if stages:
            folder, row = timed.folders[lane.schema], timed.fullest(lane.schema)
            lane.taken.parts_s = lane.stages(folder, row, _STAGE_REPEAT)


def _energy(lane: Lane, timed: _Timed, meter: Rapl | str) -> tuple[float | None, str]:
    def predict(number: int) -> None:
        timed.time(lane, repeat=number)

    return energy_of(meter, predict, percentile(lane.taken.samples_s, 50))


def _answer(lanes: Sequence[Lane], rows: Split, scratch: Path, *, worth: bool, seed: int) -> None:
    """Let every candidate predict the split, shard by shard, whole; evenly spread shards also with fewer modalities."""
    every = max(1, len(rows) // _WORTH_ROWS)
    whole: dict[str, list[NDArray[np.float64]]] = {lane.name: [] for lane in lanes}
    wanted = {lane.name: _subsets(lane, seed) if worth else () for lane in lanes}
    fewer: dict[str, dict[Subset, list[NDArray[np.float64]]]] = {
        lane.name: {names: [] for names in wanted[lane.name]} for lane in lanes
    }
    asked = np.arange(len(rows)) // _SHARD % every == 0
    for start in range(0, len(rows), _SHARD):
        numbers = range(start, min(start + _SHARD, len(rows)))
        labels = [f"{number} ({rows.ids[number]})" for number in numbers]
        folders = _write(rows, numbers, lanes, scratch / "shard")
        for lane in lanes:
            folder = folders[lane.schema]
            whole[lane.name].append(lane.predict(folder, labels))
            for names, found in fewer[lane.name].items() if asked[start] else ():
                gone = [name for name in lane.schema.names if name not in names]
                found.append(lane.predict(folder, labels, without=gone))
    for lane in lanes:
        lane.taken.outputs, lane.taken.asked = np.concatenate(whole[lane.name]), asked
        lane.taken.subsets = {names: np.concatenate(found) for names, found in fewer[lane.name].items()}


def _subsets(lane: Lane, seed: int) -> tuple[Subset, ...]:
    """What to ask a candidate with, besides everything: all but one, and what the orders of joining pass through."""
    names = lane.schema.names
    if lane.schema.task == "retrieval" or len(names) < 2 or not lane.can("without"):
        return ()
    wanted = [tuple(name for name in names if name != gone) for gone in names]
    if lane.can("subsets") or len(names) == 2:
        lane.taken.orders = Orders.of(names, seed=seed)
        wanted += lane.taken.orders.subsets()
    return tuple(subset for subset in dict.fromkeys(wanted) if subset != names)


def _write(
    rows: Split, numbers: Sequence[int] | NDArray[np.int64], lanes: Sequence[Lane], folder: Path
) -> dict[Schema, Path]:
    """Write decoded examples once per schema that a candidate reads."""
    schemas = {lane.schema: folder / str(i) for i, lane in enumerate(lanes)}
    for schema, place in schemas.items():
        write_examples(place, _decoded(rows, numbers, schema))
    return schemas


def _decoded(
    rows: Split, numbers: Sequence[int] | NDArray[np.int64], schema: Schema
) -> Iterator[dict[str, NDArray[Any]]]:
    view = rows.with_schema(schema)
    for number in numbers:
        present = {name: value for name, value in view.example(int(number)).items() if value is not None}
        yield collate([present], schema)[0] if present else {}


def _keep(folder: Path, number: int, lane: Lane, rows: Split) -> str:
    """Store raw outputs beside the reports.  Returns the file's name."""
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{number}-{re.sub(r'[^A-Za-z0-9_-]+', '-', lane.name)}.npz"
    np.savez(folder / name, ids=np.asarray(rows.ids, np.str_), targets=rows.targets, outputs=lane.taken.outputs)
    return name
