"""What adapting a network costs and brings: frozen, each adapter, and full fine-tuning.

    python bench/adapters.py DATA NETWORK [--backbone FOLDER] [--also head fusion] [--epochs 4] [--minutes 2]

DATA is a dataset's folder, NETWORK one that `save_model` wrote, such as one with a pretrained backbone and a fresh
head; where it is absent, --backbone makes it: the network of `bench/backbones.py` for that set.  Every row trains in a
fresh process with one thread: 'frozen' trains the parts in --also alone, every adapter trains itself and them, 'full'
trains all, 'cache_model' adds a cache of the training split to what 'frozen' gave.

params:        numbers that training changes
peak_bytes:    peak resident memory of the process (VmHWM), interpreter and data included
training_bytes: by how much training raised it above that of one prediction in batches of the same size
step_s:        median of the seconds between two steps, validation left out
quality:       of the test split, or of validation where there is no test split; one value per seed

Memory and seconds are the first seed's.  Every finished row leaves a file in --cells and is skipped afterwards, so that
a stopped run goes on.  Writes --out as JSON, where the other sets' rows stay, and docs/backbones.md; the last line is
JSON too.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "docs" / "results" / "adapters.json"


def measured(name: str, args: argparse.Namespace) -> dict[str, Any]:
    """In a process of its own: one row."""
    import torch
    from backbones import cut

    from triptych.data.read import load_data
    from triptych.model import load_model

    torch.set_num_threads(1)
    data, base = cut(load_data(args.data), args.train_rows), load_model(args.network)
    runs = [one_run(name, base, data, args, seed) for seed in range(args.seeds)]
    return {**runs[0], "quality": [run["quality"] for run in runs]}


def one_run(name: str, base: Any, data: Any, args: argparse.Namespace, seed: int) -> dict[str, Any]:
    import numpy as np

    from triptych.data.loader import batches
    from triptych.model import trainable_parameters
    from triptych.train import TrainConfig, fit, predict
    from triptych.train.evaluate import Score, predict_batches

    model = prepared(name, base, args, seed)
    count = sum(p.numel() for p in trainable_parameters(model).values())
    first = next(batches(data.train, model.schema, batch_size=args.batch_size, seed=seed))
    predict_batches(model, [first])
    before, ticks = resident(), []
    options = TrainConfig(
        epochs=args.epochs,
        batch_size=args.batch_size,
        eval_batch_size=args.batch_size,
        lr=args.full_lr if name == "full" else args.lr,
        seed=seed,
        precision="float32",
        max_seconds=60 * args.minutes if args.minutes else None,
    )
    model = fit(model, data, options, progress=lambda _event: ticks.append(time.perf_counter()))
    peak = resident()
    if name == "cache_model":
        model, count = cached(model, data, args), 0
    split = data.splits.get("test") or data.splits["validation"]
    outputs = predict(model, split, batch_size=args.batch_size)
    quality = Score.of(outputs, np.asarray(split.with_schema(model.schema).targets), model.schema).quality(model.schema)
    gaps = [later - earlier for earlier, later in itertools.pairwise(ticks)]
    trained = name != "cache_model"
    return {
        "params": count,
        "share": count / sum(p.numel() for p in model.parameters()),
        "peak_bytes": peak if trained else None,
        "training_bytes": peak - before if trained else None,
        "step_s": statistics.median(gaps) if trained and gaps else None,
        "quality": quality,
    }


def prepared(name: str, base: Any, args: argparse.Namespace, seed: int) -> Any:
    """The network of a row before training."""
    from triptych.model import AdapterConfig, adapt

    if name == "full":
        return copy.deepcopy(base)
    if name in ("frozen", "cache_model"):
        model = copy.deepcopy(base)
        for key, parameter in model.named_parameters():
            parameter.requires_grad_(any(key == part or key.startswith(f"{part}.") for part in args.also))
        return model
    adapter = AdapterConfig(name, rank=args.rank, alpha=2.0 * args.rank, prompts=args.prompts, also=tuple(args.also))
    return adapt(base, adapter, seed=seed)


def cached(model: Any, data: Any, args: argparse.Namespace) -> Any:
    """A cache of the training split, with the weight and sharpness that do best on validation."""
    import numpy as np

    from triptych.data.loader import batches
    from triptych.model import AdapterConfig, adapt
    from triptych.train import predict
    from triptych.train.evaluate import Score

    known = list(batches(data.train, model.schema, batch_size=args.batch_size, seed=0, shuffle=False))
    split = data.splits["validation"]
    targets = np.asarray(split.with_schema(model.schema).targets)
    tried = []
    per_class = len(data.train) / model.schema.outputs  # votes are sums over entries: many would drown the logits
    for say in (0.0, 0.5, 2.0, 8.0):
        for sharpness in (1.0, 5.5, 20.0):
            voting = adapt(model, AdapterConfig("cache_model", blend=say / per_class, sharpness=sharpness), known)
            score = Score.of(predict(voting, split, batch_size=args.batch_size), targets, model.schema)
            tried.append((score, say, sharpness, voting))
    return max(tried, key=lambda entry: entry[0])[3]


def resident() -> int:
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM:"))


def rows(network: Path, wanted: list[str]) -> list[str]:
    from triptych.model.adapters import ADAPTERS

    task = json.loads((network / "model.json").read_text())["schema"]["task"]
    adapters = [name for name in sorted(ADAPTERS) if name != "cache_model" or task == "classification"]
    return wanted or ["frozen", *adapters, "full"]


def make_network(args: argparse.Namespace) -> None:
    """Save the network of `bench/backbones.py` for the set, untrained but for its backbones."""
    from backbones import backbones, network

    from triptych.data.read import load_data
    from triptych.model import save_model

    found = backbones(args.data.name, args.backbone)
    save_model(network(load_data(args.data).schema, found, seed=0), args.network)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("network", type=Path)
    parser.add_argument("--rows", nargs="*", default=[], help="'frozen', 'full' or adapters; all where none is given")
    parser.add_argument("--also", nargs="*", default=["head", "fusion"], help="parts that every row trains")
    parser.add_argument("--backbone", type=Path, help="what efficientnet_folder.py wrote, to make NETWORK with")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--minutes", type=float, default=2.0, help="of training per row and seed, at most; 0: no limit")
    parser.add_argument("--train-rows", type=int, default=1000, help="0 means all")
    parser.add_argument("--cells", type=Path, default=ROOT / "out" / "adapters")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--full-lr", type=float, default=1e-4)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--row", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.row:
        print(json.dumps(measured(args.row, args)))
        return
    from backbones_page import cells, write_page
    from words import table

    from triptych.measure.environment import environment

    if not args.network.exists() and args.backbone is not None:
        make_network(args)
    left_out = ("data", "network", "out", "row", "rows", "cells", "backbone")
    options = {key: value for key, value in vars(args).items() if key not in left_out}
    names = rows(args.network, args.rows)
    left = [name for name in names if finished(args.cells, name, options) is None]
    estimate = len(left) * args.seeds * (args.minutes + 1)
    print(f"{len(left)} of {len(names)} rows to go, about {estimate:.0f} min", file=sys.stderr, flush=True)
    args.cells.mkdir(parents=True, exist_ok=True)
    for name in left:
        row = in_own_process(name)
        (args.cells / f"{name}.json").write_text(json.dumps({"options": options, "row": row}))
        print(name, row, file=sys.stderr, flush=True)
    found = {name: row for name in names if (row := finished(args.cells, name, options)) is not None}
    record = json.loads(args.out.read_text()) if args.out.exists() else {"sets": {}}
    record["sets"][args.data.name] = {"options": options, "environment": environment(threads=1), "rows": found}
    args.out.write_text(json.dumps(record, indent=1) + "\n")
    if args.out == RESULT:
        write_page(ROOT / "docs")
    head = ("adapter", "trained numbers", "memory of training", "per step", "quality")
    print(table(head, [(name, *cells(row)) for name, row in found.items()]))
    print(json.dumps({"result": args.out.name, "rows": list(found)}))


def finished(folder: Path, name: str, options: dict[str, Any]) -> dict[str, Any] | None:
    """A row from an earlier run.  Raises SystemExit where that had other options."""
    path = folder / f"{name}.json"
    if not path.is_file():
        return None
    made = json.loads(path.read_text())
    if made["options"] != options:
        raise SystemExit(f"{path} was made with {made['options']}, asked are {options}; give another --cells folder")
    row: dict[str, Any] = made["row"]
    return row


def in_own_process(name: str) -> dict[str, Any]:
    """A row, or why this network has no place for the adapter."""
    command = [sys.executable, __file__, *sys.argv[1:], "--row", name]
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    if done.returncode:
        return {"error": done.stderr.strip().splitlines()[-1]}
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


if __name__ == "__main__":
    main()
