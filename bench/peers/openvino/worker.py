"""Answers the questions of `triptych.measure.worker` about an OpenVINO model; needs openvino and numpy only.

    python worker.py MODEL.xml

One infer request is kept, with an input tensor of its own per input that has a fixed shape: an example is copied into
it.  An input with an open axis (text) is given as it is, without a copy.  This was the fastest of the ways tried.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov


class Model:
    """One compiled model that answers one example at a time, in float32 wherever it is not quantized."""

    def __init__(self, path: str, threads: int) -> None:
        compiled = ov.Core().compile_model(
            path,
            "CPU",
            {
                "INFERENCE_NUM_THREADS": threads,
                "PERFORMANCE_HINT": "LATENCY",
                "INFERENCE_PRECISION_HINT": "f32",
                "NUM_STREAMS": 1,
            },
        )
        self.request = compiled.create_infer_request()
        self.fillers = {value.get_any_name(): filler(value) for value in compiled.inputs}
        self.fixed = {
            value.get_any_name(): self.request.get_tensor(value).data
            for value in compiled.inputs
            if value.get_partial_shape().is_static
        }
        self.open = [name for name in self.fillers if name not in self.fixed]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.fillers)

    def run(self, inputs: dict[str, np.ndarray]) -> np.ndarray:
        for name, place in self.fixed.items():
            value = inputs.get(name, self.fillers[name])
            if value.shape == place.shape:
                place[...] = value
            else:  # a text that is shorter than the padded graph's
                place[:, : value.shape[1]], place[:, value.shape[1] :] = value, 0
        for name in self.open:
            self.request.set_tensor(name, ov.Tensor(inputs.get(name, self.fillers[name]), shared_memory=True))
        self.request.infer()
        return self.request.get_output_tensor(0).data.copy()


def filler(value: ov.Output) -> np.ndarray:
    """What stands for an input that an example lacks: NaN, or zeros where the type has none."""
    shape = [1 if size.is_dynamic else size.get_length() for size in value.get_partial_shape()]
    kind = value.get_element_type().to_dtype()
    return np.full(shape, np.nan if kind.kind == "f" else 0, kind)


def read_example(folder: Path, row: int, names: Any) -> dict[str, np.ndarray]:
    paths = {name: folder / f"{row}.{name}.npy" for name in names}
    return {name: np.load(path, allow_pickle=False) for name, path in paths.items() if path.exists()}


class Session:
    def __init__(self, path: str) -> None:
        self.path = path
        self.model: Any = None

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        if request["op"] == "load":
            self.model = Model(self.path, request["threads"])
            return {"can": ["describe"]}
        if request["op"] == "time":
            return {"samples_s": self.time(request)}
        if request["op"] == "predict":
            return {"outputs": self.predict(request)}
        if request["op"] == "describe":
            return {"params": None, "flops": {}, "versions": {"openvino": ov.__version__}}
        return {"error": f"unknown request {request['op']!r}"}

    def time(self, request: dict[str, Any]) -> list[float]:
        samples = []
        for j in range(-request["warmup"], request["repeat"]):
            row = (request["start"] + j) % request["rows"]
            inputs = read_example(Path(request["examples"]), row, self.model.names)
            start = time.perf_counter()
            self.model.run(inputs)
            taken = time.perf_counter() - start
            if j >= 0:
                samples.append(taken)
        return samples

    def predict(self, request: dict[str, Any]) -> list[list[float] | None]:
        folder, names = Path(request["examples"]), self.model.names
        rows = (read_example(folder, row, names) for row in range(request["rows"]))
        return [self.model.run(inputs)[0].tolist() if inputs else None for inputs in rows]


def main() -> None:
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    session = Session(sys.argv[1])
    for line in sys.stdin.buffer:
        answers.write(json.dumps(session.answer(json.loads(line))).encode() + b"\n")
        answers.flush()


if __name__ == "__main__":
    main()
