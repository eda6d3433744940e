"""How a fusion's time and memory grow with the tokens of its modalities, in PyTorch and in its exported graph.

    python bench/fusion_scaling.py      # prints the record as JSON; `python bench/fusion.py` writes it into docs

One layer of width 64 with four heads over two modalities of 128, 256, … tokens each, batch 1, one thread, random
weights.  Every fusion and engine has a process of its own; readings and exponents are those of mixers.py.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mixers import DIM, ENGINES, HEADS, counts, exponent, fastest, features, resident

DENSE = "hybrid"  # exact cross-attention, layer by layer: what the others are compared to
NAMES = ("hybrid", "cross", "early", "bottleneck", "linear_cross", "low_rank")
LARGEST = 4096


def fusion_module(name: str) -> Any:
    """A module from two sequences (1, tokens, dim) to (1, dim)."""
    import torch

    from triptych.model.config import BlockConfig, FusionConfig
    from triptych.model.fusion import FUSIONS
    from triptych.tokens import Tokens

    class Alone(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            kind = FUSIONS[name]
            block = BlockConfig(mixer=kind.mixer or "attention", heads=HEADS, head_dim=DIM // HEADS, hidden=2 * DIM)
            config = FusionConfig(name=name, dim=DIM, blocks=(block,) if kind.mixer else ())
            self.fusion = kind({"a": DIM, "b": DIM}, config, "float32", 0.0)

        def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.fusion({"a": Tokens(a), "b": Tokens(b)})
            return out

    torch.manual_seed(0)
    return Alone().eval()


def export(name: str, folder: Path, largest: int) -> None:
    import torch

    from triptych.system.bundle.graphs import _export

    for tokens in counts(largest):
        x = torch.zeros(1, tokens, DIM)
        (folder / f"{name}-{tokens}.onnx").write_bytes(
            _export(fusion_module(name), [x, x], ["a", "b"], ["y"], [{}, {}])
        )


def pytorch(name: str, tokens: int) -> Callable[[], object]:
    import torch

    torch.set_num_threads(1)
    module, x = fusion_module(name), torch.from_numpy(features(tokens))

    def run() -> object:
        with torch.inference_mode():
            return module(x, x.flip(1))

    return run


def onnxruntime(path: Path, tokens: int) -> Callable[[], object]:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = ort.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
    x = features(tokens)
    return lambda: session.run(None, {"a": x, "b": x[:, ::-1].copy()})


def readings(engine: str, name: str, folder: Path, largest: int) -> dict[str, dict[str, float]]:
    """In a process of its own: seconds and bytes by number of tokens per modality."""
    found: dict[str, dict[str, float]] = {}
    before = 0
    for tokens in counts(largest):
        run = pytorch(name, tokens) if engine == "pytorch" else onnxruntime(folder / f"{name}-{tokens}.onnx", tokens)
        before = before or resident()
        found[str(tokens)] = {"seconds": fastest(run), "bytes": float(resident() - before)}
    return found


def measured(largest: int = LARGEST) -> dict[str, Any]:
    """Every fusion's costs by engine and tokens, and the exponents fitted to them."""
    record: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="triptych-fusions-") as made:
        for name in NAMES:
            export(name, Path(made), largest)
            record[name] = {}
            for engine in ENGINES:
                command = [sys.executable, __file__, engine, name, made, str(largest)]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                costs = json.loads(done.stdout)
                growth = {cost: exponent(costs, cost) for cost in ("seconds", "bytes")}
                record[name][engine] = {"costs": costs, "growth": growth}
    return {"dim": DIM, "dense": DENSE, "fusions": record}


if __name__ == "__main__":
    asked = sys.argv[1:]
    print(json.dumps(readings(*asked[:2], Path(asked[2]), int(asked[3])) if asked else measured()))
