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
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "docs" / "results" / "experts.json"
PAGE = ROOT / "docs" / "experts.md"
TOKENS = 256
ENGINES = ("pytorch", "onnxruntime")
PRODUCTS = "products"
WAYS = ("one linear layer per expert", "grouped", "grouped, matrices turned", "batched")  # of `products`
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


def in_turns(runs: Sequence[Callable[[], object]], rounds: int) -> np.ndarray:
    """Seconds of each, forwards and backwards by turns: (rounds, runs)."""
    taken = np.empty((rounds + 5, len(runs)))
    for number in range(rounds + 5):
        for column in range(len(runs))[:: 1 if number % 2 else -1]:
            start = time.perf_counter()
            runs[column]()
            taken[number, column] = time.perf_counter() - start
    return taken[5:]


def reading(engine: str, layer: Layer, rounds: int) -> dict[str, Any]:
    """In a process of its own: seconds of both blocks in turns, and the median of their ratios with its interval."""
    if engine == PRODUCTS:
        return {"ratios": products(layer, rounds)}
    sparse, dense = (runner(engine, module, layer.dim) for module in modules(layer))
    taken = in_turns((sparse, dense), rounds)
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


def products(layer: Layer, rounds: int) -> dict[str, float]:
    """What PyTorch's ways to multiply by every expert's two matrices cost against one expert's on as many tokens.

    The kindest case: every expert has an even share, rows are sorted already, and nothing else is computed.
    """
    import torch
    from torch.nn import functional

    torch.set_num_threads(1)
    each = TOKENS // layer.experts
    ends = torch.arange(each, TOKENS + 1, each, dtype=torch.int32)
    shapes = ((layer.dim, layer.hidden), (layer.hidden, layer.dim))
    rows = [torch.randn(TOKENS, inputs) for inputs, _ in shapes]
    whole = [torch.randn(outputs, inputs) for inputs, outputs in shapes]
    stacked = [torch.randn(layer.experts, outputs, inputs) for inputs, outputs in shapes]
    turned = [weights.transpose(1, 2).contiguous() for weights in stacked]

    def one_by_one(x: Any, weights: Any, _: Any) -> object:
        return [functional.linear(*pair) for pair in zip(x.split(each), weights, strict=True)]

    def grouped(x: Any, weights: Any, _: Any) -> object:
        return functional.grouped_mm(x, weights.transpose(1, 2), offs=ends)

    def grouped_turned(x: Any, _: Any, weights: Any) -> object:
        return functional.grouped_mm(x, weights, offs=ends)

    def batched(x: Any, _: Any, weights: Any) -> object:
        return torch.bmm(x.view(layer.experts, each, -1), weights)

    def both(way: Any) -> Callable[[], object]:
        return torch.inference_mode()(lambda: [way(*three) for three in zip(rows, stacked, turned, strict=True)])

    dense = torch.inference_mode()(lambda: [functional.linear(x, w) for x, w in zip(rows, whole, strict=True)])
    taken = in_turns((dense, *map(both, (one_by_one, grouped, grouped_turned, batched))), rounds)
    return dict(zip(WAYS, np.median(taken[:, 1:] / taken[:, :1], axis=0).tolist(), strict=True))


def load(layer: Layer) -> float:
    """Pairs of the busiest expert over an even share."""
    import torch

    from triptych.model.experts import router_statistics

    sparse: Any = modules(layer)[0]
    with torch.inference_mode():
        found = router_statistics([sparse.router(torch.from_numpy(features(layer.dim)))])
    return max(found.load) * layer.experts


def measured(engine: str, layer: Layer, rounds: int, folder: Path | None) -> dict[str, Any]:
    from triptych.measure.environment import commit

    kept = folder and folder / f"{engine}-{layer.name}-{rounds}.json"
    if kept and kept.is_file():
        found: dict[str, Any] = json.loads(kept.read_text())
        return found
    asked = json.dumps([engine, asdict(layer), rounds])
    done = subprocess.run([sys.executable, __file__, "--reading", asked], check=True, capture_output=True, text=True)
    found = {**json.loads(done.stdout), "commit": commit(Path(__file__))}
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
    record[PRODUCTS] = [{**asdict(layer), **measured(PRODUCTS, layer, args.rounds, args.keep)} for layer in ASKED]
    RESULT.write_text(json.dumps(record, indent=1) + "\n")
    PAGE.write_text(page(record))
    usual = record["sections"][next(iter(SECTIONS))][1]
    ratios = {engine: round(usual[engine]["ratio"], 3) for engine in ENGINES}
    print(json.dumps({"result": "docs/results/experts.json", "page": "docs/experts.md", "ratio": ratios}))


# ---- the page

ABOUT_PRODUCTS = (
    "Why PyTorch is further away: the products of sorted rows, every expert with an even share of them, against one "
    "expert's two products of all tokens; no router, sorting, activation or sum. An expert has an eighth of the rows, "
    "and PyTorch takes its matrices as they are, where ONNX Runtime packs them for its kernels as it loads. *Turned* "
    "matrices lie as (inputs, outputs)."
)


def page(record: dict[str, Any]) -> str:
    from words import table

    machine = record["environment"]
    about = (
        f"A layer of experts against the dense block of one expert's size, {record['tokens']} tokens at batch 1, one "
        f"thread: {machine['cpu']}, torch {machine['packages']['torch']}, onnxruntime "
        f"{machine['packages']['onnxruntime']}; measured at commit {commits(record)}. Both run in "
        f"turns, {record['rounds']} rounds; the ratio is the median over rounds with its 95 % bootstrap "
        "interval. Weights and tokens are random; the busiest expert has so many times an even share. For 8 experts "
        "and top-1 at most "
        f"{record['limit']} is asked."
    )
    parts = ["# Experts: what a layer costs", "Written by `python bench/experts.py`. Do not edit.", about]
    first = next(iter(record["sections"]))
    for title, layers in record["sections"].items():
        limit = record["limit"] if title == first else None
        head = ("layer", "busiest", *(f"{engine}: ms, dense ms, ratio" for engine in ("PyTorch", "ONNX Runtime")))
        parts += [f"## {title[0].upper()}{title[1:]}", table(head, [row(layer, limit) for layer in layers])]
        if title == first:
            parts += ["### PyTorch's products alone", ABOUT_PRODUCTS, products_table(record[PRODUCTS])]
    return "\n\n".join(parts) + "\n"


def commits(record: dict[str, Any]) -> str:
    """Of all findings, since kept ones may be older than the rest."""
    layers = [layer for section in record["sections"].values() for layer in section]
    found = {layer[engine]["commit"] for layer in layers for engine in ENGINES}
    return ", ".join(sorted(one[:12] for one in found | {one["commit"] for one in record[PRODUCTS]}))


def products_table(found: Sequence[dict[str, Any]]) -> str:
    from words import table

    rows = [(f"{one['experts']} × ({one['dim']}, {one['hidden']})", *one["ratios"].values()) for one in found]
    return table(("matrices", *WAYS), [(name, *(f"{ratio:.2f}" for ratio in ratios)) for name, *ratios in rows])


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
