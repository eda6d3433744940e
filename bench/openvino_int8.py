"""The reference quantized to int8 by NNCF and run by OpenVINO, each in an environment of their own.

    python bench/openvino_int8.py DATA MODEL OUT

Leaves one folder per way to quantize and `done.json`, which names the chosen one: the fastest of those whose quality on
validation is within half a point of the float32 network's, else the best.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from triptych.data.collate import collate
from triptych.data.dataset import Dataset, Split
from triptych.data.read import load_data
from triptych.measure.candidate import Peer
from triptych.measure.examples import write_examples
from triptych.measure.process import Worker
from triptych.measure.quality import higher_is_better, quality
from triptych.model import Multimodal, load_model
from triptych.system.bundle.graphs import export_fused
from triptych.train.evaluate import predict

ROOT = Path(__file__).resolve().parents[1]
HERE = ROOT / "bench" / "peers" / "openvino"
ENVIRONMENT = ROOT / ".venv-openvino"
CALIBRATION_ROWS = 300
TOLERATED_DROP = 0.005
ROUNDS, EACH = 10, 16


def python() -> Path:
    """The interpreter of the peer's environment, made at the first call and whenever the requirements change."""
    ready, wanted = ENVIRONMENT / ".ready", (HERE / "requirements.txt").read_text()
    if not ready.is_file() or ready.read_text() != wanted:
        subprocess.run([sys.executable, "-m", "venv", "--clear", ENVIRONMENT], check=True)
        install = [ENVIRONMENT / "bin" / "python", "-m", "pip", "install", "--quiet", "-r", HERE / "requirements.txt"]
        subprocess.run(install, check=True)
        ready.write_text(wanted)
    return ENVIRONMENT / "bin" / "python"


def peer(out: Path, way: str | None = None) -> Peer:
    """The chosen way, as a candidate of `measure`."""
    done = json.loads((out / "done.json").read_text())
    return Peer(command(out / (way or done["chosen"])), size_bytes=done["size_bytes"])


def command(folder: Path) -> tuple[str, ...]:
    return (str(python()), str(HERE / "worker.py"), str((folder / "model.xml").resolve()))


def build(data: Dataset, model: Multimodal, out: Path, *, seed: int = 0) -> dict[str, Any]:
    """Quantize, choose on validation, and write `done.json`."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "fused.onnx").write_bytes(export_fused(model))
    with tempfile.TemporaryDirectory(prefix="triptych-openvino-") as scratch:
        calibration, validation = Path(scratch) / "calibration", Path(scratch) / "validation"
        train = data.train.with_schema(model.schema)
        generator = np.random.default_rng(seed)
        write(train, generator.permutation(len(train))[:CALIBRATION_ROWS], calibration)
        write(data.validation.with_schema(model.schema), range(len(data.validation)), validation)
        made = quantize(out, calibration, model)
        found = compare(data, model, out, ("float32", *made["ways"]), validation)
    chosen = choose(found, tuple(made["ways"]), data.schema.metric)
    texts = sum(len(m.tokenizer.encode()) for m in model.schema.modalities)
    size = texts + sum((out / chosen / file).stat().st_size for file in ("model.xml", "model.bin"))
    record = {
        "chosen": chosen,
        "size_bytes": size,
        "calibration_rows": made["rows"],
        "versions": made["versions"],
        "seconds": round(made["seconds"], 1),
        "ways": {way: {**found[way], **made["ways"].get(way, {})} for way in found},
    }
    (out / "done.json").write_text(json.dumps(record, indent=1) + "\n")
    return record


def write(rows: Split, numbers: Iterable[int], folder: Path) -> None:
    def decoded(number: int) -> dict[str, Any]:
        present = {name: value for name, value in rows.example(number).items() if value is not None}
        return collate([present], rows.schema)[0] if present else {}

    write_examples(folder, (decoded(int(number)) for number in numbers))


def quantize(out: Path, calibration: Path, model: Multimodal) -> dict[str, Any]:
    longest = {m.name: m.max_tokens for m in model.schema.modalities if m.kind == "text"}
    script = [python(), HERE / "quantize.py", out / "fused.onnx", calibration, out, json.dumps(longest)]
    with (out / "quantize.log").open("w") as log:
        done = subprocess.run(script, stdout=subprocess.PIPE, stderr=log, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"quantizing for OpenVINO failed; see {out / 'quantize.log'}")
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def compare(
    data: Dataset, model: Multimodal, out: Path, ways: tuple[str, ...], examples: Path
) -> dict[str, dict[str, Any]]:
    """Validation quality of every way, its largest difference from PyTorch, and its seconds taken in turns."""
    rows, timed = data.validation, min(32, len(data.validation))
    exact = predict(model, rows)
    workers = {way: Worker(way, command(out / way)) for way in ways}
    found: dict[str, dict[str, Any]] = {}
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    try:
        for way, worker in workers.items():
            worker.ask("load", threads=1)
            outputs = np.asarray(worker.ask("predict", examples=str(examples), rows=len(rows), without=None)["outputs"])
            found[way] = {
                "validation": quality(outputs, np.asarray(rows.targets), data.schema),
                "largest_difference": float(np.abs(outputs - exact).max()),
            }
        for turn in range(ROUNDS):
            for way, worker in workers.items():
                asked = {"examples": str(examples), "rows": timed, "start": turn * EACH, "repeat": EACH, "warmup": 2}
                seconds[way] += worker.ask("time", **asked)["samples_s"]
    finally:
        for worker in workers.values():
            worker.close()
    return {way: {**found[way], "p50_s": statistics.median(seconds[way])} for way in ways}


def choose(found: dict[str, dict[str, Any]], ways: tuple[str, ...], metric: str) -> str:
    sign = 1 if higher_is_better(metric) else -1
    drop = {way: sign * (found["float32"]["validation"] - found[way]["validation"]) for way in ways}
    kept = [way for way in ways if drop[way] <= TOLERATED_DROP]
    return min(kept, key=lambda way: found[way]["p50_s"]) if kept else min(ways, key=lambda way: drop[way])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("model", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    print(json.dumps(build(load_data(args.data), load_model(args.model), args.out, seed=args.seed)))


if __name__ == "__main__":
    main()
