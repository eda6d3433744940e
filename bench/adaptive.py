"""Modality-adaptive attention on every set: compute, latency and quality against the same network without a gate.

    python bench/adaptive.py                               # six sets, three seeds; tells how long that will take
    python bench/adaptive.py icu mosi --seeds 1            # some of them
    python bench/adaptive.py --stages measure,record       # time what is trained, when the machine is quiet, and write
    python bench/adaptive.py --stages measure,record --again    # time it once more; both timings are told

Per set and seed, every step in its own file under out/SET/SEED, so that a run that was cut off goes on; the sets may
differ in `--budget` and the seconds, each keeps to its own:

    start      the network without a gate, with exits, trained `--dense-seconds`
    settled    the same weights behind a gate that keeps to `--budget` of the operations; `--gate-seconds` of choices
               are seen, on which it settles
    learnt     the same, but learnt for as long by the straight-through estimator and a rising price instead
    fixed      the same weights, and the same share of every modality's tokens, at no more than adaptive's operations

Then each of these learns on for `--seconds`, taught by start: start becomes `dense`, the control, settled becomes
`adaptive` and learnt `estimated`, and what a gate reads rests.  Further:

    random     adaptive's weights, and its choices dealt out to the rows at random
    cascade    dense's cheapest modality first, on to the next until an exit is sure; where there are classes
    noise      what adaptive gives to a modality as noise takes its place
    measured   the bundles of dense and adaptive in turns, one thread: latency and quality

All train on rows of which one in four has one modality partly replaced by noise.  Data as in fusion.py.
"""

from __future__ import annotations

import argparse
import bisect
import dataclasses
import itertools
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import adaptive_page
import numpy as np
import torch
from adaptive_controls import cascade, dealt_at_random, spent
from adaptive_page import SETS
from main_job import write_json

import triptych
from triptych.algorithm.tokens.adapt import gated, what_decides
from triptych.data.dataset import Dataset
from triptych.data.loader import batches
from triptych.data.read import load_data
from triptych.measure import measure
from triptych.measure.environment import commit, environment
from triptych.measure.quality import quality
from triptych.model import Multimodal, build, load_model, save_model
from triptych.model.config import GateConfig
from triptych.model.cost import fit_price_
from triptych.schema import Modality
from triptych.system.bundle.export import export
from triptych.system.bundle.gated import gate_of
from triptych.system.runtime import Bundle
from triptych.tokens import Batch
from triptych.train import TrainConfig, fit
from triptych.train.allotment import Allotment
from triptych.train.evaluate import evaluate, predict
from triptych.train.losses import Distillation, TaskLoss
from triptych.train.noise import Corrupt, Ladder, corrupted, ladders
from triptych.train.settling import settle

ROOT = Path(__file__).resolve().parents[1]
STAGES = ("train", "measure", "record")
OPTIONS = (
    "network",
    "budget",
    "dense_seconds",
    "token_dropout",
    "all_tokens",
    "gate_seconds",
    "seconds",
    "lr",
    "corrupt",
)
STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
SIZES: Mapping[str, Any] = {  # few blocks and many tokens: a block then costs what it multiplies, not what it calls
    "dim": 96,
    "depth": 2,
    "heads": 4,
    "expansion": 2.0,
    "hidden": 64,
    "head_hidden": 64,
    "fusion_depth": 1,
    "hop_s": 0.010,
    "max_tokens": 200,
    "mels": 32,
    "exits": True,
}
OWN: Mapping[str, Any] = {  # more in blocks where much of the rest stays: the spectrum; convolutions of three sensors
    "ravdess": {"dim": 128, "depth": 4, "hop_s": 0.020, "dropout": 0.3},  # few clips, soon known by heart
    "sisfall": {"depth": 3, "connector": "concat_pool", "mask": False},  # of its samples none is missing
}
OF_MODALITIES: Mapping[str, Any] = {"ravdess": {"face": {"depth": 0}}}  # one token, with none to mix with
TRAIN: Mapping[str, Any] = {
    "epochs": 400,
    "batch_size": 64,
    "label_smoothing": 0.1,
    "modality_dropout": 0.1,
    "augment": 0.0,
    "average": 0.98,
    "patience": None,
    "precision": "float32",
}
QUICK = 2e-3  # rate at which start and gates learn; what has learnt goes on at `--lr`
SETTLING_CORRUPT, SETTLING_WHOLE = 0.6, 0.2  # of the rows that it settles on; of those, noise alone
LADDERS = 16  # batches that become noise while it settles
ROWS_AT_ONCE = 32
OVERHEAD_S = 30  # what a cell takes beside its trainings


def network(data: Dataset, seed: int, name: str) -> Multimodal:
    torch.manual_seed(seed)
    own = OF_MODALITIES.get(data.name, {})
    special = {m.name: {**grain(m), **own.get(m.name, {})} for m in data.schema.modalities}
    return build(name, data.schema, modalities=special, **sizes(data.name))


def sizes(name: str) -> dict[str, Any]:
    return {**SIZES, **OWN.get(name, {})}


def grain(modality: Modality) -> dict[str, Any]:
    """Sizes that make up to two hundred tokens of a modality."""
    match modality.kind:
        case "image":
            return {"patch": -(-max(modality.height, modality.width) // 14)}
        case "series":
            run = -(-modality.frames // 120)  # tokens of several frames overlap: fewer of them still see everything
            return {"frames_per_token": run, **({"form": "convolved"} if run > 1 else {})}
        case "audio":
            return {"shrink": 2 if modality.sample_rate >= 16_000 else 1}
        case _:
            return {}


class Cell:
    """One set and seed: trains, judges, and keeps what is done."""

    def __init__(self, data: Dataset, seed: int, args: argparse.Namespace) -> None:
        self.data, self.seed, self.args = data, seed, args
        self.folder = args.out / data.name / str(seed)
        self.corrupt = Corrupt(data.schema, args.corrupt)

    def train(self, start: Multimodal, seconds: float, objective: Any = None, **more: Any) -> Multimodal:
        own = {"seed": self.seed, "max_seconds": seconds, "lr": self.args.lr, **more}
        config = TrainConfig.from_dict({**TRAIN, **own})
        hook = getattr(objective, "after_step", None)
        return fit(start, self.data, config, objective=objective, augment=self.corrupt, after_step=hook)

    def model(self, name: str, make: Callable[[], Multimodal]) -> Multimodal:
        folder = self.folder / name
        if not (folder / "done.json").exists():
            start = time.monotonic()
            model = save_model(make(), folder)
            write_json(folder / "done.json", {"seconds": round(time.monotonic() - start, 1)})
            say(f"{self.data.name} {self.seed} {name}: {time.monotonic() - start:.0f} s")
            return load_model(model)
        return load_model(folder)

    def record(self, name: str, make: Callable[[], Any]) -> Any:
        path = self.folder / f"{name}.json"
        if not path.exists():
            write_json(path, make())
        return json.loads(path.read_text())

    def priced(self) -> list[Batch]:
        """Clean validation rows that the price is fitted on."""
        rows = batches(self.data.validation, batch_size=64, seed=self.seed, shuffle=True)
        return [batch for batch, _ in zip(rows, range(32), strict=False)]

    def settling(self, seconds: float) -> Iterator[Batch]:
        """Training rows for as long, more of them corrupted than in training: each strength must be seen."""
        corrupt = Corrupt(self.data.schema, SETTLING_CORRUPT, SETTLING_WHOLE)
        split, end = self.data.train, time.monotonic() + seconds
        generator = torch.Generator().manual_seed(self.seed)
        for epoch in itertools.count():
            for batch in batches(split, batch_size=64, seed=self.seed, epoch=epoch):
                if time.monotonic() > end:
                    return
                yield corrupt(batch, generator)

    def noisier(self) -> Iterator[Ladder]:
        """Training rows that become noise one modality at a time."""
        rows = batches(self.data.train, batch_size=64, seed=self.seed + 1, shuffle=True)
        return ladders(self.data.schema, itertools.islice(rows, LADDERS), self.seed)

    def objective(self, teacher: Multimodal, budget: float) -> Allotment:
        answers = torch.from_numpy(predict(teacher, self.data.train)).unsqueeze(0)
        lesson = Distillation(teacher, remembered=answers)
        return Allotment(budget, TaskLoss(TRAIN["label_smoothing"]), lesson)

    def start(self) -> Multimodal:
        """Some of its tokens left out until late: so it trains faster, and knows how to live with fewer."""
        start = network(self.data, self.seed, self.args.network)
        drop = {"token_dropout": self.args.token_dropout, "all_tokens": self.args.all_tokens}
        return self.train(start, self.args.dense_seconds, lr=QUICK, **drop)

    def settled(self, start: Multimodal) -> Multimodal:
        model, budget = gated(start, GateConfig()), self.args.budget
        objective, known = self.objective(start, budget), self.settling(self.args.gate_seconds)
        settle(model, known, objective, noisier=self.noisier(), seed=self.seed)
        fit_price_(model, self.priced(), budget)
        return model

    def straight_through(self, start: Multimodal) -> Multimodal:
        model, seconds, budget = gated(start, GateConfig(rank=True)), self.args.gate_seconds, self.args.budget
        fit_price_(model, self.priced(), budget)
        others = [name for name, part in model.named_children() if name != "gate" and list(part.parameters())]
        model = self.train(model, seconds, self.objective(start, budget), freeze=others, lr=QUICK)
        fit_price_(model, self.priced(), budget)
        return model

    def sharing(self, start: Multimodal, cost: float) -> Multimodal:
        """The largest equal share that costs no more."""

        def equal(percent: int) -> Multimodal:
            return gated(start, GateConfig(shares=(percent / 100,)))

        affordable = bisect.bisect_right(range(1, 101), cost, key=lambda p: gate_of(equal(p)).cost[1:].min().item())
        return equal(max(affordable, 1))

    def on(self, model: Multimodal, start: Multimodal, rest: Sequence[str] = ()) -> Multimodal:
        """Learns to live with the tokens that it gets.  rest: parts that do not change"""
        return self.train(model, self.args.seconds, self.objective(start, 1.0).lesson, freeze=rest)

    def train_all(self) -> None:
        data = self.data
        start = self.model("start", self.start)
        dense = self.model("dense", lambda: self.on(start, start))
        self.record("dense", lambda: {"quality": evaluate(dense, data.test), "cost": 1.0})
        settled = self.model("settled", lambda: self.settled(start))
        adaptive = self.model("adaptive", lambda: self.on(settled, start, what_decides(settled)))
        told = self.record("adaptive", lambda: spent(adaptive, data.test))
        learnt = self.model("learnt", lambda: self.straight_through(start))
        estimated = self.model("estimated", lambda: self.on(learnt, start, what_decides(learnt)))
        self.record("estimated", lambda: spent(estimated, data.test))
        fixed = self.model("fixed", lambda: self.on(self.sharing(start, told["cost"]), start))
        self.record("fixed", lambda: spent(fixed, data.test))
        self.record("random", lambda: dealt_at_random(adaptive, data, self.seed))
        self.record("cascade", lambda: cascade(dense, data, told["cost"]))
        self.record("noise", lambda: self.noise(dense, adaptive))

    def measure(self) -> None:
        path = self.folder / "measured.json"
        if self.args.again and path.exists():
            path.replace(self.folder / "before.json")
        self.record("measured", self.measured)

    def noise(self, dense: Multimodal, adaptive: Multimodal) -> dict[str, Any]:
        """By modality and strength: the share of its tokens that is read, and the quality with and without a gate."""
        batch = next(iter(batches(self.data.test, batch_size=512, seed=0, shuffle=True)))
        found: dict[str, Any] = {}
        for place, name in enumerate(self.data.schema.names):
            found[name] = []
            for strength in STRENGTHS:
                generator = torch.Generator().manual_seed(0)
                noisy = corrupted(
                    self.data.schema[name], batch.inputs[name], torch.full((len(batch),), strength), generator
                )
                given = dataclasses.replace(batch, inputs={**batch.inputs, name: noisy})
                found[name].append({"strength": strength, **self.shares(dense, adaptive, given, place)})
        return found

    @torch.inference_mode()
    def shares(self, dense: Multimodal, adaptive: Multimodal, batch: Batch, place: int) -> dict[str, float]:
        gate, schema = gate_of(adaptive), self.data.schema
        keep = gate.choose(gate.summaries(adaptive.look_all(batch)))[:, place]
        targets = np.asarray(batch.target)
        return {
            "share": (keep / gate.counts[schema.names[place]][-1]).mean().item(),
            "adaptive": quality(adaptive(batch).double().numpy(), targets, schema),
            "dense": quality(dense(batch).double().numpy(), targets, schema),
        }

    def measured(self) -> dict[str, Any]:
        folders = {
            name: export(load_model(self.folder / name), self.folder / "bundles" / name, self.data)
            for name in ("dense", "adaptive")
        }
        found = measure(folders, self.data, threads=1, repeat=self.args.repeat, parts=False)
        batch_s = in_batches(folders, self.data)
        keys = ("quality", "drop", "drop_interval", "p50_s", "p95_s", "p50_ratio", "p50_ratio_interval")
        record: dict[str, Any] = {n: {key: getattr(report, key) for key in keys} for n, report in found.items()}
        for name, seconds in batch_s.items():
            record[name] |= {"batch_s": seconds, "batch_ratio": seconds / batch_s["dense"]}
        return {**record, "commit": commit(Path(triptych.__file__)), "environment": environment(threads=1)}


def in_batches(folders: Mapping[str, Path], data: Dataset) -> dict[str, float]:
    """Median seconds of a prediction of `ROWS_AT_ONCE` rows, one thread, the bundles in turns."""
    bundles = {name: Bundle.load(folder, threads=1) for name, folder in folders.items()}
    found: dict[str, list[float]] = {name: [] for name in bundles}
    for batch, _ in zip(batches(data.test, batch_size=ROWS_AT_ONCE, seed=0, shuffle=True), range(20), strict=False):
        inputs = {name: value.numpy() for name, value in batch.inputs.items()}
        for name, bundle in [*bundles.items()] * 3:
            start = time.perf_counter()
            bundle.run(inputs)
            found[name].append(time.perf_counter() - start)
    return {name: statistics.median(seconds) for name, seconds in found.items()}


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def loaded(name: str) -> Dataset:
    return load_data(Path(os.environ.get("TRIPTYCH_DATA", ROOT.parent / "shared" / "data")) / name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="*", metavar="SET", help=f"of {', '.join(SETS)}; all where left out")
    parser.add_argument("--stages", default=",".join(STAGES))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--network", default="late_fusion")
    parser.add_argument("--budget", type=float, default=0.4)
    parser.add_argument("--dense-seconds", type=float, default=600)
    parser.add_argument("--token-dropout", type=float, default=0.5, help="of start while it is trained")
    parser.add_argument("--all-tokens", type=float, default=0.3, help="last share of that training without any")
    parser.add_argument("--gate-seconds", type=float, default=30)
    parser.add_argument("--seconds", type=float, default=60, help="that all learn on for")
    parser.add_argument("--lr", type=float, default=3e-4, help="of what has learnt already")
    parser.add_argument("--corrupt", type=float, default=0.25)
    parser.add_argument("--repeat", type=int, default=200, help="timed predictions per bundle")
    parser.add_argument("--again", action="store_true", help="time what was timed once more; both are told")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("out/adaptive"))
    parser.add_argument("--docs", type=Path, default=ROOT / "docs", help="where `record` writes")
    args = parser.parse_args()
    sets, stages = args.sets or list(SETS), args.stages.split(",")
    if unknown := {*sets} - {*SETS} | {*stages} - {*STAGES}:
        parser.error(f"unknown {sorted(unknown)}; sets are {SETS}, stages {STAGES}")
    torch.set_num_threads(args.threads)
    start = time.monotonic()
    cells = [(name, seed) for seed in range(args.seeds) for name in sets]
    if "train" in stages:
        for name in sets:
            same_options(args.out / name / "options.json", {key: getattr(args, key) for key in OPTIONS})
        left = [cell for cell in cells if not (args.out / cell[0] / str(cell[1]) / "noise.json").exists()]
        each = args.dense_seconds + 2 * args.gate_seconds + 4 * args.seconds + OVERHEAD_S
        say(f"{len(left)} of {len(cells)} cells to train, about {len(left) * each / 60:.0f} minutes")
        for name, seed in left:
            Cell(loaded(name), seed, args).train_all()
    if "measure" in stages:
        for name, seed in cells:
            if (args.out / name / str(seed) / "noise.json").exists():
                Cell(loaded(name), seed, args).measure()
    if "record" in stages:
        write_json(args.docs / "results" / "adaptive.json", gather(args.out, args.seeds))
        adaptive_page.write_page(args.docs)
    print(json.dumps({"sets": sets, "stages": stages, "wall_s": round(time.monotonic() - start, 1)}))


def gather(out: Path, seeds: int) -> dict[str, Any]:
    """All that is finished, by set; a list over the seeds for each step."""
    steps = ("dense", "adaptive", "estimated", "fixed", "random", "cascade", "noise", "measured")
    sets: dict[str, Any] = {}
    for name in SETS:
        folders = [out / name / str(seed) for seed in range(seeds)]
        done = [folder for folder in folders if (folder / "measured.json").exists()]
        if done:
            sets[name] = {step: [json.loads((f / f"{step}.json").read_text()) for f in done] for step in steps}
            sets[name]["before"] = [json.loads(path.read_text()) for f in done if (path := f / "before.json").exists()]
            sets[name]["metric"] = loaded(name).schema.metric
            sets[name]["options"] = json.loads((out / name / "options.json").read_text())
            sets[name]["sizes"] = {**sizes(name), "modalities": OF_MODALITIES.get(name, {})}
    return {"environment": environment(threads=1), "sets": sets}


def same_options(path: Path, options: Mapping[str, Any]) -> None:
    """Ends the program where the finished cells were made with other options."""
    if path.exists() and json.loads(path.read_text()) != options:
        sys.exit(f"{path} tells of other options; give the same ones, or another --out")
    write_json(path, options)


if __name__ == "__main__":
    main()
