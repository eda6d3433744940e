"""What each choice in `system/runtime/session.py` buys: the same graph, one thread, one option changed at a time.

    python bench/session_options.py [rounds]

A small and a large network with random weights, batch 1.  Every reading is a fresh process that imports numpy and
onnxruntime only; the options take turns, `rounds` times.  Figures are medians over the rounds: the p50 of one
prediction, seconds to load, and peak resident memory above that process before it loads.  About two minutes.  Writes
docs/results/session-options.json, which docs/results.md shows; last line: JSON.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

RESULT = Path(__file__).resolve().parents[1] / "docs" / "results" / "session-options.json"
LARGE = {"dim": 192, "depth": 5, "heads": 6}
NETWORKS = {"small": {"dim": 48, "depth": 2, "heads": 3}, "large": LARGE, "large, int8": LARGE}
OPTIONS = (
    "as shipped",
    "weights inside the graph",
    "weights handed over in memory",
    "no arena",
    "no memory pattern",
    "no prepacking",
    "basic optimisation",
)
JOINED = "products and biases joined"  # of the int8 network, instead of the others
TIMED, WARMUP = 300, 30


def reading(folder: Path, option: str) -> dict[str, float]:
    """In a fresh process: load, predict, and say what it cost."""
    import onnxruntime as ort

    inputs = dict(np.load(folder / "inputs.npz"))
    before = resident()
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.enable_cpu_mem_arena = option != "no arena"
    options.enable_mem_pattern = option != "no memory pattern"
    if option == "no prepacking":
        options.add_session_config_entry("session.disable_prepacking", "1")
    if option == "basic optimisation":
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    start = time.perf_counter()
    name = "inside" if option == "weights inside the graph" else "outside"
    if option == "weights handed over in memory":
        weights = (folder / "weights.bin").read_bytes()
        options.add_external_initializers_from_files_in_memory(["weights.bin"], [weights], [len(weights)])
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(folder))
    apart = ["MatMulAddFusion"] if (folder / "int8").exists() and option != JOINED else None
    graph = (folder / f"{name}.onnx").read_bytes()
    session = ort.InferenceSession(graph, options, ["CPUExecutionProvider"], disabled_optimizers=apart)
    load_s = time.perf_counter() - start
    taken = []
    for _ in range(WARMUP + TIMED):
        start = time.perf_counter()
        session.run(None, inputs)
        taken.append(time.perf_counter() - start)
    return {"p50_s": statistics.median(taken[WARMUP:]), "load_s": load_s, "peak_bytes": resident() - before}


def resident() -> int:
    """Peak resident bytes of this process so far."""
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM:"))


def prepare(folder: Path, sizes: dict[str, int], *, whole: bool) -> int:
    """Export one network both ways, with products of integers or of floats.  Returns its number of parameters."""
    import torch

    from triptych.algorithm import Int8, compress
    from triptych.model import build, example_batch
    from triptych.schema import Modality, Schema
    from triptych.system.bundle.graphs import export_fused
    from triptych.system.bundle.weights import share_weights, strip_notes

    image = Modality("image", "image", height=64, width=64, channels=3)
    audio = Modality("audio", "audio", sample_rate=8000, max_samples=8000, channels=1)
    torch.manual_seed(0)
    model = build("late_fusion", Schema("made", (image, audio), "y", "classification", "accuracy", ("a", "b")), **sizes)
    if whole:
        model = compress(model, [Int8()], [example_batch(model.schema)])
        (folder / "int8").touch()
    graph = strip_notes(export_fused(model))
    outside, weights = share_weights({"fused": graph})
    (folder / "inside.onnx").write_bytes(graph)
    (folder / "outside.onnx").write_bytes(outside["fused"])
    (folder / "weights.bin").write_bytes(weights)
    np.savez(folder / "inputs.npz", **{name: x.numpy() for name, x in example_batch(model.schema).inputs.items()})
    return sum(p.numel() for p in model.parameters())


def measured(folder: Path, rounds: int) -> dict[str, dict[str, Any]]:
    options = ("as shipped", JOINED) if (folder / "int8").exists() else OPTIONS
    taken: dict[str, list[dict[str, float]]] = {option: [] for option in options}
    for _ in range(rounds):
        for option in options:
            command = [sys.executable, __file__, "--reading", str(folder), option]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            taken[option].append(json.loads(done.stdout))
    return {
        option: {key: statistics.median(r[key] for r in found) for key in found[0]} for option, found in taken.items()
    }


def main() -> None:
    if sys.argv[1:2] == ["--reading"]:
        print(json.dumps(reading(Path(sys.argv[2]), sys.argv[3])))
        return
    from triptych.measure.environment import environment

    rounds, networks = int(sys.argv[1]) if len(sys.argv) > 1 else 7, {}
    record: dict[str, Any] = {"rounds": rounds, "environment": environment(threads=1), "networks": networks}
    for name, sizes in NETWORKS.items():
        with tempfile.TemporaryDirectory(prefix="triptych-options-") as made:
            params = prepare(Path(made), sizes, whole="int8" in name)
            networks[name] = {"params": params, "options": measured(Path(made), rounds)}
    RESULT.write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps({"result": str(RESULT), "rounds": rounds}))


if __name__ == "__main__":
    main()
