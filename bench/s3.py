"""S3 against its controls: what a linear probe reads when fewer and fewer routes are worked on.

    python bench/s3.py --estimate                # how long the rest will take here, from a few steps of each set
    python bench/s3.py                           # every set, χ in {2, 4, 8}, three seeds, and all controls
    python bench/s3.py icu mosi --stages train   # some of it; may run beside another one with other sets
    python bench/s3.py --stages record           # write docs again from what is there

Networks are small: width 64, two blocks that all modalities share, a few dozen tokens.  S3 specialises for `--steps`
steps and selects for `--select-steps`; every control trains for their sum.  At most `--rows` training rows are used,
for training and for probes alike.  Curves are of the test split, with routes kept among each row's own ('row');
automatic p looks at validation only.  Stages, each leaving what exists:

    train    out/SET/s3-CHI-SEED.json and out/SET/CONTROL-SEED.json
    factors  out/factors/NAME-SEED.json: what is known of made factors
    speed    out/speed.json: latency of an exported encoder by share of routes, one thread
    record   docs/results/s3.json, and from that alone docs/s3.md and its pictures

Data lies in ../shared/data beside the repository, or where TRIPTYCH_DATA says.  The last line is JSON.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import s3_factors
import s3_page
import torch
from fusion import grain, loaded, read, same_budget, say
from main_job import write_json

import triptych
from triptych.data.dataset import Dataset
from triptych.data.factors import Factors, make_factors
from triptych.measure.environment import commit, environment
from triptych.measure.quality import quality
from triptych.model import Multimodal
from triptych.model.s3 import router_share, s3_network
from triptych.system.bundle.graphs import _encode_graph, frozen
from triptych.train import TrainConfig
from triptych.train.s3 import CONTROLS, S3, SHARES, Alignment, align, choose_share, features, fit_probe

ROOT = Path(__file__).resolve().parents[1]
SETS = ("avdigits", "ravdess", "mosi", "icu", "sisfall")
STAGES = ("train", "factors", "speed", "record")
GRANULARITIES = (2, 4, 8)
CONTROL_GRANULARITY = 4  # of the dense mixture
SIZES: Mapping[str, Any] = {
    "dim": 64,
    "depth": 2,
    "heads": 4,
    "expansion": 2.0,
    "hidden": 64,
    "head_hidden": 64,
    "fusion_depth": 1,
    "dropout": 0.0,
    "hop_s": 0.040,
    "max_tokens": 25,
    "mels": 32,
}
SPREAD = 4
TRAIN: Mapping[str, Any] = {"batch_size": 64, "lr": 2e-3, "precision": "float32", "patience": None}
CONTROL_SHARES = (0.8, 0.5, 0.2)  # at which routes are also left out at random


def config(data: Dataset, steps: int, seed: int) -> TrainConfig:
    """About so many steps, to whole epochs."""
    each = max(1, len(data.train) // TRAIN["batch_size"])
    return TrainConfig(epochs=max(1, round(steps / each)), seed=seed, **TRAIN)


def sized(data: Dataset, rows: int) -> Dataset:
    """At most so many training rows, drawn evenly."""
    if len(data.train) <= rows:
        return data
    drawn = np.sort(np.random.default_rng(0).permutation(len(data.train))[:rows])
    return dataclasses.replace(data, splits={**data.splits, "train": data.train.subset(drawn)})


def fresh(data: Dataset, granularity: int, seed: int) -> S3:
    torch.manual_seed(seed)
    grains = {modality.name: grain(modality) for modality in data.schema.modalities}
    sizes = {"granularity": granularity, "spread": SPREAD, **SIZES}
    return S3(s3_network(data.schema, modalities=grains, **sizes))


def answers(model: Multimodal, data: Dataset, *splits: str) -> list[np.ndarray[Any, Any]]:
    """What a probe on the training rows says of each split: (rows, outputs) each."""
    probe = fit_probe(features(model, data.train), np.asarray(data.train.targets), data.schema)
    return [probe(features(model, data.splits[split])).numpy() for split in splits]


def judged(model: Multimodal, data: Dataset) -> float:
    """What a probe on the training rows reads of the test rows."""
    return quality(*answers(model, data, "test"), np.asarray(data.test.targets), data.schema)


def s3_cell(data: Dataset, granularity: int, seed: int, args: argparse.Namespace) -> dict[str, Any]:
    """One S3 through its stages, with its curve."""
    s3 = fresh(data, granularity, seed)
    record: dict[str, Any] = {"fresh": judged(s3.model, data), "router_share": router_share(s3.model)}
    s3 = s3.specialise(data, config(data, args.steps, seed))
    record["specialised"] = judged(s3.model, data)
    s3 = s3.select(data, config(data, args.select_steps, seed))
    both = {p: answers(s3.sparsify(p).model, data, "validation", "test") for p in SHARES}
    truth = np.asarray(data.test.targets)
    record["curve"] = {f"{p:g}": quality(outputs, truth, data.schema) for p, (_, outputs) in both.items()}
    record["random"] = {f"{p:g}": judged(s3.sparsify(p, way="random").model, data) for p in CONTROL_SHARES}
    seen, generator = np.asarray(data.validation.targets), np.random.default_rng(seed)
    choice = choose_share({p: outputs for p, (outputs, _) in both.items()}, seen, data.schema, generator=generator)
    record["auto"] = {"share": choice.share, "interval": choice.interval}
    record["validation"] = {f"{p:g}": value for p, (value, _, _) in choice.curve.items()}
    record["fixed"] = judged(s3.sparsify(choice.share, way="score", data=data).model, data)
    return record


def control_cell(data: Dataset, name: str, seed: int, args: argparse.Namespace) -> dict[str, Any]:
    """One control, trained as long as S3 is."""
    torch.manual_seed(seed)
    control = CONTROLS[name]
    grains = {modality.name: grain(modality) for modality in data.schema.modalities}
    model = control.network(data.schema, granularity=CONTROL_GRANULARITY, modalities=grains, **SIZES)
    steps = config(data, args.steps + args.select_steps, seed)
    return {"quality": judged(align(model, data, steps, Alignment(control.weights)), data)}


def cells(sets: list[str], args: argparse.Namespace) -> list[tuple[str, Path, Callable[[Dataset], dict[str, Any]]]]:
    """Set, file and work of everything to train: all first seeds before any second."""
    found = []
    for seed in range(args.seeds):
        for name in sets:
            for chi in GRANULARITIES:
                path = args.out / name / f"s3-{chi}-{seed}.json"
                found.append((name, path, lambda data, chi=chi, seed=seed: s3_cell(data, chi, seed, args)))
            for control in CONTROLS:
                path = args.out / name / f"{control}-{seed}.json"
                found.append((name, path, lambda data, c=control, seed=seed: control_cell(data, c, seed, args)))
    return found


def train(sets: list[str], args: argparse.Namespace) -> None:
    left = [cell for cell in cells(sets, args) if not cell[1].exists()]
    held: dict[str, Dataset] = {}
    spent = 0.0
    for number, (name, path, work) in enumerate(left, 1):
        if name not in held:
            held[name] = sized(loaded(name), args.rows)
        start = time.monotonic()
        record = work(held[name])
        seconds = time.monotonic() - start
        spent += seconds
        write_json(path, {**record, "train_s": round(seconds, 1), "commit": commit(Path(triptych.__file__))})
        rest = spent / number * (len(left) - number)
        say(f"{name} {path.stem} in {seconds:.0f} s; {len(left) - number} left, about {rest / 60:.0f} minutes")


def estimate(sets: list[str], args: argparse.Namespace) -> float:
    """Seconds that training everything takes, from a few steps of S3 on each set."""
    total = 0.0
    for name in sets:
        data = sized(loaded(name), 4 * TRAIN["batch_size"])
        s3 = fresh(data, CONTROL_GRANULARITY, 0)
        s3.features(data.train)  # decodes
        start = time.monotonic()
        s3.specialise(data, config(data, 4, 0))
        step = (time.monotonic() - start) / 4
        start = time.monotonic()
        s3.features(data.train)
        row = (time.monotonic() - start) / len(data.train)
        whole = loaded(name)
        probe = row * (min(args.rows, len(whole.train)) + len(whole.test))
        steps = step * (args.steps + args.select_steps)
        networks = len(GRANULARITIES) + len(CONTROLS)
        probes = len(GRANULARITIES) * (2 * len(SHARES) + len(CONTROL_SHARES) + 4) + len(CONTROLS)
        seconds = args.seeds * (networks * steps + probes * probe)
        say(f"{name}: {step:.2f} s a step, {probe:.1f} s a probe, {seconds / 60:.0f} minutes in all")
        total += seconds
    return total


def speed(args: argparse.Namespace) -> dict[str, Any]:
    """Median seconds of one exported encoder at batch 1 by share of routes, measured in turns, one thread.

    A made series of 258 tokens, width 128, fresh weights: what routes cost does not depend on what they have learnt.
    """
    import onnxruntime as ort

    data = make_factors(Factors(frames=86, channels=6, rows={"train": 64, "validation": 2, "test": 16})).data
    torch.manual_seed(0)
    shape = {"dim": 128, "depth": 2, "expansion": 4.0, "frames_per_token": 1, "granularity": CONTROL_GRANULARITY}
    s3 = S3(s3_network(data.schema, spread=SPREAD, **shape))
    name = data.schema.names[0]
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    raws = [data.test.stack(np.array([row]))[0][name] for row in range(len(data.test))]

    def opened(model: Multimodal) -> Any:
        graph = _encode_graph(frozen(model), name)
        return ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])

    runs = {"all 1": opened(s3.model)}
    for way in ("row", "score"):
        for p in SHARES:
            runs[f"{way} {p:g}"] = opened(s3.sparsify(p, way=way, data=data).model)
    taken: dict[str, list[float]] = {key: [] for key in runs}
    for turn in range(args.repeat + 5):
        for key, session in runs.items():
            start = time.perf_counter()
            session.run(None, {name: raws[turn % len(raws)]})
            if turn >= 5:
                taken[key].append(time.perf_counter() - start)
    p50: dict[str, dict[str, float]] = {"all": {}, "row": {}, "score": {}}
    for key, seconds in taken.items():
        way, share = key.split()
        p50[way][share] = float(np.median(seconds))
    tokens = s3.model.encoders[name].stem.tokens
    return {"granularity": CONTROL_GRANULARITY, "tokens": tokens, "p50_s": p50, "environment": environment(threads=1)}


def gather(args: argparse.Namespace) -> dict[str, Any]:
    """All that is there, by set."""
    record: dict[str, Any] = {**read(args.out / "budget.json"), "environment": environment(threads=1), "sets": {}}
    for name in SETS:
        runs = {path.stem: read(path) for path in sorted((args.out / name).glob("*-*.json"))}
        if not runs:
            continue
        data = loaded(name)
        names = {key.rpartition("-")[0] for key in runs}
        by_name = {n: [runs[f"{n}-{s}"] for s in range(args.seeds) if f"{n}-{s}" in runs] for n in sorted(names)}
        record["sets"][name] = {"metric": data.schema.metric, "runs": by_name}
    for part in ("factors", "speed"):
        path = args.out / f"{part}.json"
        if path.exists():
            record[part] = read(path)
    return record


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="*", metavar="SET", help=f"of {', '.join(SETS)}; all where left out")
    parser.add_argument("--stages", default=",".join(STAGES))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=150, help="of specialising")
    parser.add_argument("--select-steps", type=int, default=50)
    parser.add_argument("--rows", type=int, default=1600, help="training rows at most")
    parser.add_argument("--repeat", type=int, default=200, help="timed runs of an encoder")
    parser.add_argument("--estimate", action="store_true", help="say how long training takes, and do nothing else")
    parser.add_argument("--out", type=Path, default=Path("out/s3"))
    parser.add_argument("--docs", type=Path, default=ROOT / "docs", help="where `record` writes")
    args = parser.parse_args()
    sets, stages = args.sets or list(SETS), args.stages.split(",")
    if unknown := {*sets} - {*SETS} | {*stages} - {*STAGES}:
        parser.error(f"unknown {sorted(unknown)}; sets are {SETS}, stages {STAGES}")
    torch.set_num_threads(1)
    if args.estimate:
        print(json.dumps({"estimate_s": round(estimate(sets, args))}))
        return
    start = time.monotonic()
    budget = {"steps": args.steps, "select_steps": args.select_steps, "rows": args.rows, "train": dict(TRAIN)}
    same_budget(args.out / "budget.json", budget)
    if "train" in stages:
        train(sets, args)
    if "factors" in stages and not (args.out / "factors.json").exists():
        write_json(args.out / "factors.json", s3_factors.measured(args.out / "factors", args.seeds, args.steps))
    if "speed" in stages and not (args.out / "speed.json").exists():
        write_json(args.out / "speed.json", speed(args))
    if "record" in stages:
        write_json(args.docs / "results" / "s3.json", gather(args))
        s3_page.write_page(args.docs)
    print(json.dumps({"sets": sets, "stages": stages, "wall_s": round(time.monotonic() - start, 1)}))


if __name__ == "__main__":
    sys.exit(main())
