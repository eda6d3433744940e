"""How every mixer's time and memory grow with the number of tokens, in PyTorch and in its exported graph.

    python bench/mixers.py [--largest 16384]

One mixer of width 64 with four heads, batch 1, one thread, random weights.  Every mixer and engine has a process of
its own, which goes through 128, 256, … tokens; a reading is the fastest of several predictions, memory is the peak so
far above what the process had before its first prediction.  Exponents are slopes of log cost over log tokens from
1,024 tokens on, where what is constant no longer counts.  Some minutes.  Writes docs/results/mixers.json, which
docs/mixers.md shows; last line: JSON.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "docs" / "results" / "mixers.json"
PAGE = ROOT / "docs" / "mixers.md"
DIM, HEADS, SMALLEST, FITTED_FROM = 64, 4, 128, 1024
ENGINES = ("pytorch", "onnxruntime")
ENOUGH_S, LONGEST_S, MOST_BYTES = 0.3, 20.0, 10e9
LINEAR = ("depthwise", "linear", "low_rank", "pooling", "recurrent", "state_space", "window")
LIMIT = 1.15


def mixer_module(name: str, tokens: int) -> Any:
    """A module from (1, tokens, dim) to the same."""
    import torch

    from triptych.model.config import BlockConfig
    from triptych.model.mixers import MIXERS
    from triptych.tokens import Tokens

    class Alone(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            block = BlockConfig(mixer=name, heads=HEADS, head_dim=DIM // HEADS)
            self.mixer = MIXERS[name](DIM, block, (tokens,), "float32")

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.mixer(Tokens(x))
            return out

    torch.manual_seed(0)
    return Alone().eval()


def counts(largest: int) -> list[int]:
    found = [SMALLEST]
    while found[-1] * 2 <= largest:
        found.append(found[-1] * 2)
    return found


def readings(engine: str, name: str, folder: Path, largest: int) -> dict[str, dict[str, float]]:
    """In a process of its own: seconds and bytes by number of tokens, until one prediction takes too long."""
    found: dict[str, dict[str, float]] = {}
    before = 0
    for tokens in counts(largest):
        run = pytorch(name, tokens) if engine == "pytorch" else onnxruntime(folder / f"{name}-{tokens}.onnx", tokens)
        before = before or resident()
        found[str(tokens)] = {"seconds": fastest(run), "bytes": float(resident() - before)}
        if found[str(tokens)]["seconds"] > LONGEST_S or found[str(tokens)]["bytes"] > MOST_BYTES / 3.5:
            break
    return found


def pytorch(name: str, tokens: int) -> Callable[[], object]:
    import torch

    torch.set_num_threads(1)
    module, x = mixer_module(name, tokens), torch.from_numpy(features(tokens))

    def run() -> object:
        with torch.inference_mode():
            return module(x)

    return run


def onnxruntime(path: Path, tokens: int) -> Callable[[], object]:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = ort.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
    feed = {"x": features(tokens)}
    return lambda: session.run(None, feed)


def features(tokens: int) -> Any:
    return np.random.default_rng(0).standard_normal((1, tokens, DIM)).astype(np.float32)


def fastest(run: Callable[[], object]) -> float:
    """Seconds of the fastest of at least three predictions, after one that is not counted."""
    run()
    taken: list[float] = []
    while len(taken) < 3 or (sum(taken) < ENOUGH_S and len(taken) < 200):
        start = time.perf_counter()
        run()
        taken.append(time.perf_counter() - start)
    return min(taken)


def resident() -> int:
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM:"))


def export(name: str, folder: Path, largest: int) -> None:
    import torch

    from triptych.system.bundle.graphs import _export

    for tokens in counts(largest):
        graph = _export(mixer_module(name, tokens), [torch.zeros(1, tokens, DIM)], ["x"], ["y"], [{}])
        (folder / f"{name}-{tokens}.onnx").write_bytes(graph)


def exponent(found: dict[str, dict[str, float]], cost: str) -> float | None:
    """Slope of log cost over log tokens; None where fewer than three readings are left, or memory did not grow."""
    points = [(int(n), r[cost]) for n, r in found.items() if int(n) >= FITTED_FROM and r[cost] > 0]
    if len(points) < 3:
        return None
    tokens, costs = np.log(np.array(points)).T
    return float(np.polyfit(tokens, costs, 1)[0])


def overtakes(found: dict[str, dict[str, float]], attention: dict[str, dict[str, float]]) -> int | None:
    """The fewest tokens from which on a mixer is always faster than full attention."""
    first = None
    for tokens in sorted({*found} & {*attention}, key=int):
        if found[tokens]["seconds"] >= attention[tokens]["seconds"]:
            first = None
        elif first is None:
            first = int(tokens)
    return first


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--largest", type=int, default=16_384)
    parser.add_argument("--reading", nargs=3, metavar=("ENGINE", "MIXER", "FOLDER"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.reading:
        engine, name, folder = args.reading
        print(json.dumps(readings(engine, name, Path(folder), args.largest)))
        return
    from triptych.measure.environment import environment
    from triptych.model.mixers import MIXERS

    record: dict[str, Any] = {"dim": DIM, "heads": HEADS, "environment": environment(threads=1), "mixers": {}}
    with tempfile.TemporaryDirectory(prefix="triptych-mixers-") as made:
        for name in sorted(MIXERS):
            export(name, Path(made), args.largest)
            record["mixers"][name] = {engine: measured(engine, name, made, args.largest) for engine in ENGINES}
            print(name, {e: exponent(found, "seconds") for e, found in record["mixers"][name].items()}, file=sys.stderr)
    for found in record["mixers"].values():
        for engine in ENGINES:
            growth = {cost: exponent(found[engine], cost) for cost in ("seconds", "bytes")}
            growth["overtakes"] = overtakes(found[engine], record["mixers"]["attention"][engine])
            found[f"{engine}_growth"] = growth
    RESULT.write_text(json.dumps(record, indent=1) + "\n")
    PAGE.write_text(page(record))
    print(json.dumps({"result": "docs/results/mixers.json", "page": "docs/mixers.md"}))


def measured(engine: str, name: str, folder: str, largest: int) -> dict[str, dict[str, float]]:
    command = [sys.executable, __file__, "--largest", str(largest), "--reading", engine, name, folder]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, dict[str, float]] = json.loads(done.stdout)
    return found


# ---- the page


def page(record: dict[str, Any]) -> str:
    from words import table

    machine = record["environment"]
    head = ("mixer", "time grows as tokens^", "memory grows as tokens^", "faster than full attention from")
    about = (
        f"One mixer of width {record['dim']} with {record['heads']} heads, batch 1, one thread: {machine['cpu']}, "
        f"torch {machine['packages']['torch']}, onnxruntime {machine['packages']['onnxruntime']}; commit "
        f"{machine['commit'][:12]}. Exponents are fitted from {FITTED_FROM:,} tokens on; those that are meant to be "
        f"linear are asked for at most {LIMIT}. A dash: not measured, because full maps of attention no longer fit or "
        "take too long, or memory did not grow."
    )
    parts = ["# Mixers: what a token costs", "Written by `python bench/mixers.py`. Do not edit.", about]
    for engine in ENGINES:
        rows = [(name, *growth_cells(name, found[f"{engine}_growth"])) for name, found in record["mixers"].items()]
        parts += [f"## {'PyTorch' if engine == 'pytorch' else 'The exported graph, ONNX Runtime'}", table(head, rows)]
        parts.append(table(*costs_table(record["mixers"], engine)))
    return "\n\n".join(parts) + "\n"


def growth_cells(name: str, growth: dict[str, Any]) -> tuple[str, str, str]:
    missed = name in LINEAR and growth["seconds"] is not None and growth["seconds"] > LIMIT
    seconds = "–" if growth["seconds"] is None else f"{growth['seconds']:.2f}"
    memory = "–" if growth["bytes"] is None else f"{growth['bytes']:.2f}"
    from_on = "–" if growth["overtakes"] is None else f"{growth['overtakes']:,} tokens"
    return (f"**{seconds} ✗**" if missed else seconds, memory, from_on)


def costs_table(mixers: dict[str, Any], engine: str) -> tuple[Sequence[str], list[Sequence[str]]]:
    tokens = sorted({n for found in mixers.values() for n in found[engine]}, key=int)
    rows = []
    for name, found in mixers.items():
        cells = (found[engine].get(n) for n in tokens)
        rows.append(
            (name, *("–" if c is None else f"{1e3 * c['seconds']:.3g} ms, {c['bytes'] / 1e6:.0f} MB" for c in cells))
        )
    return ("mixer", *(f"{int(n):,}" for n in tokens)), rows


def cost_cell(cost: dict[str, float] | None) -> str:
    return "–" if cost is None else f"{1e3 * cost['seconds']:.3g} ms, {cost['bytes'] / 1e6:.0f} MB"


if __name__ == "__main__":
    main()
