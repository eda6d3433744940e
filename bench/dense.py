"""Train one dense control the way the reference is trained, and write it as a bundle in float32.

    python bench/dense.py DATA OUT --divide 2      # width and depth of the reference halved
    python bench/dense.py DATA OUT --only image    # the reference with one modality

Leaves `model/`, `bundle/` (not with --only) and `done.json` in OUT.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from triptych.data.dataset import Dataset
from triptych.data.read import load_data
from triptych.measure.quality import quality, quality_interval
from triptych.model import Multimodal, build, save_model
from triptych.search.recipes import reference_recipe
from triptych.system.bundle.export import export
from triptych.train import TrainConfig
from triptych.train.evaluate import predict
from triptych.train.loop import fit_with_history

WIDTHS = ("dim", "depth", "hidden", "head_hidden")


def smaller(sizes: dict[str, Any], divide: int) -> dict[str, Any]:
    return {key: value // divide if key in WIDTHS else value for key, value in sizes.items()}


def answered(model: Multimodal, data: Dataset, split: str) -> dict[str, Any]:
    rows = data.splits[split]
    outputs, targets = predict(model, rows).astype(np.float64), np.asarray(rows.targets)
    interval = quality_interval(outputs, targets, data.schema, generator=np.random.default_rng(0))
    return {"quality": quality(outputs, targets, data.schema), "quality_interval": list(interval)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("out", type=Path)
    parser.add_argument("--divide", type=int, default=1)
    parser.add_argument("--only", action="append", default=[])
    parser.add_argument("--max-seconds", type=float, default=600.0)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    start = time.monotonic()
    data = load_data(args.data)
    data = data.only(*args.only) if args.only else data
    sizes, options = reference_recipe(data.name)
    sizes = smaller(sizes, args.divide)
    config = TrainConfig.from_dict({**options, "seed": args.seed, "max_seconds": args.max_seconds})
    network = sizes.pop("network")
    fitted = fit_with_history(build(network, data.schema, **sizes), data, config)
    save_model(fitted.model, args.out / "model")
    record = {
        "modalities": list(data.schema.names),
        "sizes": {key: sizes[key] for key in WIDTHS},
        "params": sum(p.numel() for p in fitted.model.parameters()),
        "train": config.to_dict(),
        "epochs": max((int(entry["epoch"]) for entry in fitted.history), default=0),
        "seconds": round(fitted.seconds, 1),
        "validation": answered(fitted.model, data, "validation"),
    }
    if args.only:
        record["test"] = answered(fitted.model, data, "test")
    else:
        export(fitted.model, args.out / "bundle", data)
    record["wall_s"] = round(time.monotonic() - start, 1)
    (args.out / "done.json").write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps({"out": str(args.out), "quality": record["validation"]["quality"], "wall_s": record["wall_s"]}))


if __name__ == "__main__":
    main()
