"""Every fusion on every set with the same budget of training, and how its cost grows with the number of tokens.

    python bench/fusion.py                                     # every set and fusion, three seeds; under two hours
    python bench/fusion.py icu mosi --fusions late,cross       # some of them
    python bench/fusion.py --stages record                     # write docs again from what is there

Networks are small and alike but for the fusion: width 64, one block per modality, one layer of fusion, a few dozen
tokens.  Each trains on about as many rows (`--rows`, repeated or not) and is judged on the test split, once with all
modalities and once without each; modalities are hidden at random while training.  A set is decoded once.  Stages:

    train    out/SET/FUSION-SEED.json, and the first seed's bundle; what is there is kept
    measure  out/SET/measure.json: latency and memory of all bundles of a set, in turns, one thread
    scaling  out/scaling.json, see fusion_scaling.py
    record   docs/results/fusion.json, and from that alone docs/fusion.md

Data lies in ../shared/data beside the repository, or where TRIPTYCH_DATA says.  The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import fusion_page
import fusion_scaling
import numpy as np
import torch
from against import fewer
from main_job import write_json

import triptych
from triptych.data.dataset import Dataset, Split
from triptych.data.loader import batches
from triptych.data.read import load_data
from triptych.measure import measure
from triptych.measure.environment import commit, environment
from triptych.measure.quality import quality
from triptych.model import Multimodal, build
from triptych.model.build import NAMES
from triptych.model.fusion import FUSIONS
from triptych.schema import Modality
from triptych.system.bundle.export import export
from triptych.train import TrainConfig
from triptych.train.evaluate import predict_batches
from triptych.train.loop import fit_with_history

ROOT = Path(__file__).resolve().parents[1]
SETS = ("avdigits", "fashion", "sisfall", "ravdess", "icu", "mosi")
STAGES = ("train", "measure", "scaling", "record")
SIZES: Mapping[str, Any] = {
    "dim": 64,
    "depth": 1,
    "heads": 4,
    "expansion": 2.0,
    "hidden": 64,
    "head_hidden": 64,
    "fusion_depth": 1,
    "hop_s": 0.040,
    "max_tokens": 25,
    "mels": 32,
}
TRAIN: Mapping[str, Any] = {
    "batch_size": 64,
    "lr": 2e-3,
    "label_smoothing": 0.1,
    "average": 0.98,
    "modality_dropout": 0.15,
    "patience": None,
    "precision": "float32",
}
MOST_TOKENS = 24  # of a series
SIDE = 4  # patches along the longer side of an image


def network(name: str, data: Dataset, seed: int) -> Multimodal:
    """A fresh network of the common sizes."""
    torch.manual_seed(seed)
    special = {modality.name: grain(modality) for modality in data.schema.modalities}
    usual = f"{name}_fusion"
    named = usual if usual in NAMES else next(known for known, fusion in NAMES.items() if fusion == name)
    return build(named, data.schema, modalities=special, **SIZES)


def grain(modality: Modality) -> dict[str, Any]:
    """Sizes that make a few dozen tokens of a modality."""
    match modality.kind:
        case "image":
            return {"patch": -(-max(modality.height, modality.width) // SIDE)}
        case "series":
            return {"frames_per_token": -(-modality.frames // MOST_TOKENS)}
        case "audio":
            return {"shrink": 2 if modality.sample_rate >= 16_000 else 1}
        case _:
            return {}


def train(name: str, data: Dataset, seed: int, args: argparse.Namespace, folder: Path) -> None:
    """Train and judge one network; the first seed's is kept as a bundle.  What was done before is left alone."""
    done = folder / f"{name}-{seed}.json"
    if done.exists():
        return
    epochs = max(1, round(args.rows / len(data.train)))
    config = TrainConfig.from_dict({**TRAIN, "epochs": epochs, "seed": seed, "max_seconds": args.seconds})
    start = time.monotonic()
    fitted = fit_with_history(network(name, data, seed), data, config)
    train_s = time.monotonic() - start
    model = fitted.model
    if seed == 0:
        export(model, folder / name, data)
    names = data.schema.names
    record = {
        "quality": answered(model, data.test, names),
        "without": {gone: answered(model, data.test, [n for n in names if n != gone]) for gone in names},
        "validation": fitted.quality,
        "steps": fitted.steps,
        "train_s": round(train_s, 2),
        "params": sum(p.numel() for p in model.parameters()),
        "flops": sum(model.flops().values()),
        "commit": commit(Path(triptych.__file__)),
    }
    write_json(done, record)
    say(f"{data.name} {name} seed {seed}: {data.schema.metric} {record['quality']:.3f} in {train_s:.0f} s")


def answered(model: Multimodal, rows: Split, names: Sequence[str]) -> float:
    """The metric on the rows, of which the network sees some modalities."""
    seen = (batch.only(*names) for batch in batches(rows, batch_size=256, seed=0, shuffle=False))
    return quality(predict_batches(model, seen).astype(np.float64), np.asarray(rows.targets), rows.schema)


def timed(names: Sequence[str], data: Dataset, folder: Path, repeat: int) -> None:
    """Latency and memory of a set's bundles, in turns in processes of their own."""
    done = folder / "measure.json"
    if done.exists() and set(read(done)["bundles"]) == set(names):
        return
    found = measure({name: folder / name for name in names}, fewer(data), threads=1, repeat=repeat, parts=False)
    bundles = {
        name: {key: getattr(report, key) for key in ("p50_s", "p95_s", "peak_bytes", "size_bytes")}
        for name, report in found.items()
    }
    write_json(done, {"bundles": bundles, "environment": environment(threads=1)})


def gather(out: Path, seeds: int) -> dict[str, Any]:
    """All that the stages left, by set and fusion; a set counts from its measurement on."""
    sets = {name: of_set(out / name, seeds) for name in SETS if (out / name / "measure.json").exists()}
    of_tokens = sorted(name for name, fusion in FUSIONS.items() if fusion.mixer)
    record: dict[str, Any] = {**read(out / "budget.json"), "of_tokens": of_tokens, "sets": sets}
    if (out / "scaling.json").exists():
        record["scaling"] = read(out / "scaling.json")
    return record


def of_set(folder: Path, seeds: int) -> dict[str, Any]:
    measured = read(folder / "measure.json")
    fusions = {}
    for name, costs in measured["bundles"].items():
        runs = [read(path) for seed in range(seeds) if (path := folder / f"{name}-{seed}.json").exists()]
        fusions[name] = {
            "quality": [run["quality"] for run in runs],
            "without": {gone: [run["without"][gone] for run in runs] for gone in runs[0]["without"]},
            "train_s": [run["train_s"] for run in runs],
            "steps": [run["steps"] for run in runs],
            "commits": sorted({run["commit"] for run in runs if run["commit"]}),
            **{key: runs[0][key] for key in ("params", "flops")},
            **costs,
        }
    return {**read(folder / "set.json"), "environment": measured["environment"], "fusions": fusions}


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def loaded(name: str) -> Dataset:
    return load_data(Path(os.environ.get("TRIPTYCH_DATA", ROOT.parent / "shared" / "data")) / name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="*", metavar="SET", help=f"of {', '.join(SETS)}; all where left out")
    parser.add_argument("--fusions", default=",".join(sorted(FUSIONS)))
    parser.add_argument("--stages", default=",".join(STAGES))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=19_200, help="rows that a network trains on, to whole epochs")
    parser.add_argument("--seconds", type=float, help="wall limit of one training; left out, none")
    parser.add_argument("--repeat", type=int, default=200, help="timed predictions per bundle")
    parser.add_argument("--out", type=Path, default=Path("out/fusion"))
    parser.add_argument("--docs", type=Path, default=ROOT / "docs", help="where `record` writes")
    args = parser.parse_args()
    sets, names, stages = args.sets or list(SETS), args.fusions.split(","), args.stages.split(",")
    if unknown := {*sets} - {*SETS} | {*names} - {*FUSIONS} | {*stages} - {*STAGES}:
        parser.error(f"unknown {sorted(unknown)}; sets are {SETS}, fusions {sorted(FUSIONS)}, stages {STAGES}")
    torch.set_num_threads(1)
    start = time.monotonic()
    same_budget(args.out / "budget.json", {"rows": args.rows, "seconds": args.seconds, "train": dict(TRAIN)})
    for name in sets if {"train", "measure"} & {*stages} else ():
        work(loaded(name), names, stages, args)
    if "scaling" in stages and not (args.out / "scaling.json").exists():
        write_json(args.out / "scaling.json", fusion_scaling.measured())
    if "record" in stages:
        write_json(args.docs / "results" / "fusion.json", gather(args.out, args.seeds))
        fusion_page.write_page(args.docs)
    print(json.dumps({"sets": sets, "fusions": names, "stages": stages, "wall_s": round(time.monotonic() - start, 1)}))


def work(data: Dataset, names: Sequence[str], stages: Sequence[str], args: argparse.Namespace) -> None:
    folder = args.out / data.name
    rows = {split: len(data[split]) for split in ("train", "validation", "test")}
    write_json(folder / "set.json", {"metric": data.schema.metric, "rows": rows})
    if "train" in stages:
        for seed in range(args.seeds):  # all fusions get their first seed before any gets its second
            for name in names:
                train(name, data, seed, args, folder)
    if "measure" in stages:
        timed(names, data, folder, args.repeat)


def same_budget(path: Path, budget: Mapping[str, Any]) -> None:
    """Keep the budget beside its runs.  Ends the program where they were made with another one."""
    if path.exists() and read(path) != budget:
        sys.exit(f"{path} tells of another budget; give the same --rows and --seconds, or another --out")
    write_json(path, budget)


if __name__ == "__main__":
    main()
