"""The process in which one candidate is measured, and the protocol that it and every `Peer` speaks.

A worker reads one JSON object per line on stdin and answers each with one JSON object on one line of stdout.
It ends when stdin ends.  Anything else it has to say goes to stderr.  It must answer one request before it reads the
next, and may be stopped (SIGSTOP) in between.  An answer `{"error": "why"}` ends the measurement.

Examples are a folder of `<row>.<modality>.npy` files, rows from 0; each array has a batch axis of one and the raw,
decoded form of `triptych.tokens.Batch`; a file that is not there is a missing modality.

    {"op": "load", "threads": 1}
        → {"can": ["without", "subsets", "parts", "describe"]}
    {"op": "time", "examples": PATH, "rows": 32, "start": 0, "repeat": 5, "warmup": 1}
        → {"samples_s": [seconds, …]}
    {"op": "predict", "examples": PATH, "rows": 128, "without": null}
        → {"outputs": [[…], null, …], "spent": [{"shares": {"image": 0.5}, "flops": 1}, …]}
    {"op": "parts", "examples": PATH, "row": 0, "repeat": 20}
        → {"parts_s": {"image.encode": [seconds, …], …}}
    {"op": "describe"}
        → {"params": 1, "flops": {"image.encode": 1}, "weight_bytes": {"image.encode": 4}, "versions": {"torch": "2"},
           "routers": null}

load:     load the candidate, and nothing that predicting does not need.  `can` lists which of the optional abilities
          `without`, `subsets`, `parts` and `describe` it has; a worker with none may answer `{}`.
time:     `warmup` untimed and then `repeat` timed predictions of one example each, the j-th timed one of row
          `(start + j) % rows`.  Reading the example is not timed; input array to output array is.
predict:  the output of every row in order (logits, or the value in the target's units), null for a row that has none of
          the candidate's modalities.  `without` names a modality to leave out, or with the ability
          `subsets` a list of them.  `spent` is optional: what each row used of its modalities' tokens and, if
          known, its operations, for a candidate whose rows differ in that.
parts:    seconds of each stage for one row.
describe: `routers` holds what every layer of experts does, as in a report; null or absent without any.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import IO, Any

from triptych.errors import MeasureError
from triptych.measure.examples import groups, read_example
from triptych.measure.predictor import BundlePredictor, ModelPredictor, Predictor, Spent

ABILITIES = ("without", "subsets", "parts", "describe")
KINDS: Mapping[str, Callable[[Path, int], Predictor]] = {"bundle": BundlePredictor, "model": ModelPredictor}


class Session:
    """Answers requests about one candidate."""

    def __init__(self, load: Callable[[int], Predictor]) -> None:
        self._load = load
        self._loaded: Predictor | None = None

    def answer(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Answer one request.  Raises MeasureError if it is unknown or comes before `load`."""
        answers = {"time": self._time, "predict": self._predict, "parts": self._parts, "describe": self._describe}
        if request["op"] == "load":
            self._loaded = self._load(request["threads"])
            return {"can": list(ABILITIES)}
        if request["op"] not in answers:
            raise MeasureError(f"unknown request {request['op']!r}; known are {['load', *answers]}")
        return answers[request["op"]](request)

    @property
    def _predictor(self) -> Predictor:
        if self._loaded is None:
            raise MeasureError("the first request must be 'load'")
        return self._loaded

    def _time(self, request: Mapping[str, Any]) -> dict[str, Any]:
        predictor, samples = self._predictor, []
        for j in range(-request["warmup"], request["repeat"]):
            row = (request["start"] + j) % request["rows"]
            inputs = read_example(Path(request["examples"]), row, predictor.names)
            start = time.perf_counter()
            predictor.run(inputs)
            taken = time.perf_counter() - start
            if j >= 0:
                samples.append(taken)
        return {"samples_s": samples}

    def _predict(self, request: Mapping[str, Any]) -> dict[str, Any]:
        predictor, outputs = self._predictor, [None] * request["rows"]
        gone = request["without"] or ()
        gone = (gone,) if isinstance(gone, str) else tuple(gone)
        names = tuple(n for n in predictor.names if n not in gone)
        spent: list[Spent] = []
        for rows, inputs in groups(Path(request["examples"]), request["rows"], names, predictor.batch):
            answers, found = predictor.answer(inputs)
            spent += found
            for row, output in zip(rows, answers.tolist(), strict=True):
                outputs[row] = output
        return {"outputs": outputs, "spent": spent}

    def _parts(self, request: Mapping[str, Any]) -> dict[str, Any]:
        inputs = read_example(Path(request["examples"]), request["row"], self._predictor.names)
        return {"parts_s": self._predictor.parts(inputs, request["repeat"])}

    def _describe(self, request: Mapping[str, Any]) -> dict[str, Any]:  # noqa: ARG002 (all answers share a signature)
        return self._predictor.describe()


def serve(session: Session, requests: Iterable[bytes], answers: IO[bytes]) -> None:
    """Answer request lines until they end."""
    for line in requests:
        answers.write(json.dumps(session.answer(json.loads(line))).encode() + b"\n")
        answers.flush()


def main() -> None:
    """Run one worker over stdin and stdout; what libraries print on stdout is sent to stderr."""
    kind, folder = sys.argv[1:]
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    session = Session(lambda threads: KINDS[kind](Path(folder), threads))
    serve(session, sys.stdin.buffer, answers)


if __name__ == "__main__":
    main()
