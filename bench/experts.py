"""What a layer of experts costs against the dense block of one expert's size, in PyTorch and in its exported graph.

    python bench/experts.py [--rounds 200] [--keep FOLDER]

One channel block, 256 tokens at batch 1, one thread, random weights and tokens.  Layer and dense block run in turns in
one process, and the figure is the median over rounds of the ratio of their seconds in the same round.  Every
configuration has a process of its own, whose finding is kept in FOLDER and not measured again; a few minutes.  Writes
docs/results/experts.json, which docs/experts.md shows; last line: JSON.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "docs" / "results" / "experts.json"
PAGE = ROOT / "docs" / "experts.md"
TOKENS = 256
ENGINES = ("pytorch", "onnxruntime")
LIMIT = 1.3  # times the dense block, for 8 experts and top-1


@dataclass(frozen=True)
class Layer:
    """One layer of experts.  left: share of the pairs that is left out, at random"""

    dim: int = 128
    hidden: int = 512
    experts: int = 8
    active: int = 1
    router: str = "top_k"
    left: float = 0.0

    @property
    def name(self) -> str:
        """One name for each."""
        return "-".join(str(value) for value in asdict(self).values())


ASKED = (Layer(64, 256), Layer(), Layer(192, 768), Layer(256, 1024))
GROWTH = tuple(Layer(experts=experts) for experts in (1, 2, 4, 16, 32, 64))
ACTIVE = tuple(Layer(active=active) for active in (2, 4, 8))
ROUTERS = tuple(Layer(router=router) for router in ("expert_choice", "laplace", "modality"))
FINE = tuple(Layer(hidden=64, experts=32, active=8, left=left) for left in (0.0, 0.25, 0.5, 0.75, 0.9))
SECTIONS = {
    "8 experts, top-1, by size": ASKED,
    "by number of experts": (*GROWTH[:3], Layer(), *GROWTH[3:]),
    "by active experts": (Layer(), *ACTIVE),
    "by router": (Layer(), *ROUTERS),
    "32 small experts, top-8, by the share of pairs left out, against a dense block of all active ones": FINE,
}


def modules(layer: Layer) -> tuple[Any, Any]:
    """The layer and its dense block, from (1, tokens, dim) to the same; the dense one as wide as the active experts of
    a fine-grained layer, else as one expert.
    """
    import torch

    from triptych.model.channels import CHANNELS
    from triptych.model.config import BlockConfig

    block = BlockConfig(
        hidden=layer.hidden, experts=layer.experts, active=layer.active, router=layer.router, channel="experts"
    )
    wide = layer.hidden * (layer.active if layer in FINE else 1)
    torch.manual_seed(0)
    sparse, dense = (
        CHANNELS["experts"](layer.dim, block, "float32"),
        CHANNELS["mlp"](layer.dim, BlockConfig(hidden=wide), "float32"),
    )
    routed: Any = sparse
    if layer.router != "laplace":
        with torch.no_grad():
            routed.router.score.weight.normal_(std=layer.dim**-0.5)
    if layer.left:
        routed.router = Sparser(routed.router, layer.left)
    return sparse.eval(), dense.eval()


def Sparser(router: Any, left: float) -> Any:  # noqa: N802 (a class made here, since importing torch costs seconds)
    """A router that leaves out every so-manieth pair."""
    import torch

    class Fewer(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = router

        def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> Any:
            routing = self.inner(x, mask)
            place = torch.arange(routing.token.shape[0]) * 61 % 100
            return routing.only(place >= round(100 * left))

    return Fewer()


def features(dim: int) -> Any:
    return np.random.default_rng(0).standard_normal((1, TOKENS, dim)).astype(np.float32)


def runner(engine: str, module: Any, dim: int) -> Callable[[], object]:
    """One prediction of a channel block."""
    import torch

    x = torch.from_numpy(features(dim))
    if engine == "pytorch":
        torch.set_num_threads(1)

        def run() -> object:
            with torch.inference_mode():
                return module(x)

        return run
    import onnxruntime

    from triptych.model.experts import ExpertMlps, ExpertMlpsGraph
    from triptych.system.bundle.graphs import _export

    if isinstance(getattr(module, "mlps", None), ExpertMlps):
        module.mlps = ExpertMlpsGraph(module.mlps)
    graph = _export(module, [x], ["x"], ["y"], [{}])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    feed = {"x": x.numpy()}
    return lambda: session.run(None, feed)


def reading(engine: str, layer: Layer, rounds: int) -> dict[str, Any]:
    """In a process of its own: seconds of both blocks in turns, and the median of their ratios with its interval."""
    sparse, dense = (runner(engine, module, layer.dim) for module in modules(layer))
    taken = np.empty((rounds + 5, 2))
    for number in range(rounds + 5):
        for column, run in enumerate((sparse, dense) if number % 2 else (sparse, dense)[::-1]):
            start = time.perf_counter()
            run()
            taken[number, column if number % 2 else 1 - column] = time.perf_counter() - start
    taken = taken[5:]
    ratios = taken[:, 0] / taken[:, 1]
    generator = np.random.default_rng(0)
    drawn = np.median(ratios[generator.integers(0, rounds, (1000, rounds))], axis=1)
    return {
        "seconds": float(np.median(taken[:, 0])),
        "dense_seconds": float(np.median(taken[:, 1])),
        "ratio": float(np.median(ratios)),
        "interval": [float(end) for end in np.quantile(drawn, [0.025, 0.975])],
        "load": load(layer),
    }


def load(layer: Layer) -> float:
    """Pairs of the busiest expert over an even share."""
    import torch

    from triptych.model.experts import router_statistics

    sparse: Any = modules(layer)[0]
    with torch.inference_mode():
        found = router_statistics([sparse.router(torch.from_numpy(features(layer.dim)))])
    return max(found.load) * layer.experts


def measured(engine: str, layer: Layer, rounds: int, folder: Path | None) -> dict[str, Any]:
    kept = folder and folder / f"{engine}-{layer.name}-{rounds}.json"
    if kept and kept.is_file():
        found: dict[str, Any] = json.loads(kept.read_text())
        return found
    asked = json.dumps([engine, asdict(layer), rounds])
    done = subprocess.run([sys.executable, __file__, "--reading", asked], check=True, capture_output=True, text=True)
    found = json.loads(done.stdout)
    if kept:
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps(found))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--keep", type=Path, help="where findings are kept, so that a stopped run goes on")
    parser.add_argument("--reading", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.reading:
        engine, layer, rounds = json.loads(args.reading)
        print(json.dumps(reading(engine, Layer(**layer), rounds)))
        return
    from triptych.measure.environment import environment

    record: dict[str, Any] = {"tokens": TOKENS, "rounds": args.rounds, "environment": environment(threads=1)}
    record["limit"] = LIMIT
    record["sections"] = {
        title: [
            {**asdict(layer), **{engine: measured(engine, layer, args.rounds, args.keep) for engine in ENGINES}}
            for layer in layers
        ]
        for title, layers in SECTIONS.items()
    }
    RESULT.write_text(json.dumps(record, indent=1) + "\n")
    PAGE.write_text(page(record))
    usual = record["sections"][next(iter(SECTIONS))][1]
    ratios = {engine: round(usual[engine]["ratio"], 3) for engine in ENGINES}
    print(json.dumps({"result": "docs/results/experts.json", "page": "docs/experts.md", "ratio": ratios}))


# ---- the page


def page(record: dict[str, Any]) -> str:
    from words import table

    machine = record["environment"]
    about = (
        f"A layer of experts against the dense block of one expert's size, {record['tokens']} tokens at batch 1, one "
        f"thread: {machine['cpu']}, torch {machine['packages']['torch']}, onnxruntime "
        f"{machine['packages']['onnxruntime']}; commit {machine['commit'][:12]}. Both run in turns, {record['rounds']} "
        "rounds; the ratio is the median over rounds with its 95 % bootstrap interval. Weights and tokens are random; "
        "the busiest expert has so many times an even share. For 8 experts and top-1 at most "
        f"{record['limit']} is asked."
    )
    parts = ["# Experts: what a layer costs", "Written by `python bench/experts.py`. Do not edit.", about]
    first = next(iter(record["sections"]))
    for title, layers in record["sections"].items():
        limit = record["limit"] if title == first else None
        head = ("layer", "busiest", *(f"{engine}: ms, dense ms, ratio" for engine in ("PyTorch", "ONNX Runtime")))
        parts += [f"## {title[0].upper()}{title[1:]}", table(head, [row(layer, limit) for layer in layers])]
    return "\n\n".join(parts) + "\n"


def row(layer: dict[str, Any], limit: float | None) -> tuple[str, ...]:
    left = f", {layer['left']:.0%} left out" if layer["left"] else ""
    name = (
        f"{layer['experts']} × ({layer['dim']}, {layer['hidden']}), {layer['active']} active, {layer['router']}{left}"
    )
    return (name, f"{layer['pytorch']['load']:.2f}", *(cell(layer[engine], limit) for engine in ENGINES))


def cell(found: dict[str, Any], limit: float | None) -> str:
    low, high = found["interval"]
    ratio = f"{found['ratio']:.2f} [{low:.2f}, {high:.2f}]"
    if limit is not None:
        ratio += f" ({'met' if found['ratio'] <= limit else 'missed'})"
    return f"{1e3 * found['seconds']:.3f}, {1e3 * found['dense_seconds']:.3f}, {ratio}"


if __name__ == "__main__":
    main()
