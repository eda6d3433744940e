"""What happens when modalities are missing, in training and afterwards, and what balancing them changes.

    python bench/missing.py --estimate                      # how long everything would take here
    python bench/missing.py                                 # every set, three seeds
    python bench/missing.py mosi ravdess --parts balance    # a part of it
    python bench/missing.py --parts record                  # write docs again from what is there

Small late-fusion networks, as bench/fusion.py has them.  Parts:

    fills    every set: ways of dealing with what is missing, at shares of the training rows that lack some of their
             modalities for the whole training; judged on the test split with every subset of the modalities
    balance  mosi and ravdess: ways of keeping modalities from silencing each other; test quality with every subset,
             and each modality's Shapley value
    record   docs/results/missing.json, and from that alone docs/missing.md and its plots

One cell is one training: out/missing/SET/…json.  What is there is kept, so a stopped run goes on.  For two cores start
it twice with different sets.  Data lies in ../shared/data beside the repository, or where TRIPTYCH_DATA says.  The last
line is JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import missing_page
import numpy as np
import torch
from fusion import SETS, SIZES, TRAIN, grain, loaded, read, same_budget, say
from main_job import write_json

import triptych
from triptych.data.dataset import Dataset, Split
from triptych.data.loader import batches
from triptych.measure.environment import commit, environment
from triptych.measure.shapley import Floats, Orders, Subset, qualities, shapley
from triptych.model import Multimodal, build
from triptych.train import TrainConfig
from triptych.train.balance import BALANCES
from triptych.train.evaluate import in_eval
from triptych.train.loop import fit_with_history

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("fills", "balance", "record")
WAYS: Mapping[str, Mapping[str, Any]] = {  # the fill, and the modality dropout while training
    "zero": {"fill": "zero", "modality_dropout": 0.0},
    "placeholder": {"fill": "placeholder", "modality_dropout": 0.0},
    "dropout": {"fill": "zero", "modality_dropout": 0.3},
    "bank": {"fill": "bank", "modality_dropout": 0.0},
    "bank_dropout": {"fill": "bank", "modality_dropout": 0.3},
}
USUAL_WAYS = ("zero", "placeholder", "dropout", "bank")
RATES = (0.0, 0.3, 0.6, 0.9)
BALANCED = ("mosi", "ravdess")
NONE = "none"
PROBE_STEPS = 6


@dataclass(frozen=True)
class Cell:
    """One training.  part: 'fills' or 'balance'; way: a way to fill, or a balance; rate: of incomplete rows"""

    part: str
    data: str
    way: str
    rate: float
    seed: int

    def path(self, out: Path) -> Path:
        middle = f"-{round(100 * self.rate)}" if self.part == "fills" else ""
        return out / self.data / f"{self.part}-{self.way}{middle}-{self.seed}.json"

    def options(self) -> dict[str, Any]:
        """Of the training, beside the common ones."""
        if self.part == "fills":
            return {"modality_dropout": WAYS[self.way]["modality_dropout"], "incomplete": self.rate}
        return {"balance": "" if self.way == NONE else self.way}

    @property
    def fill(self) -> str:
        return str(WAYS[self.way]["fill"]) if self.part == "fills" else ""


def cells(args: argparse.Namespace, name: str) -> Iterator[Cell]:
    """Every cell of a set, the first seed of all before the second of any."""
    for seed in range(args.seeds):
        if "fills" in args.parts:
            yield from (Cell("fills", name, way, rate, seed) for way in args.ways for rate in args.rates)
        if "balance" in args.parts and name in BALANCED:
            yield from (Cell("balance", name, way, 0.0, seed) for way in (NONE, *args.balances))


def network(cell: Cell, data: Dataset) -> Multimodal:
    torch.manual_seed(cell.seed)
    special = {modality.name: grain(modality) for modality in data.schema.modalities}
    return build("late_fusion", data.schema, modalities=special, fill=cell.fill, **SIZES)


def config(cell: Cell, data: Dataset, args: argparse.Namespace) -> TrainConfig:
    rows = args.rows if cell.part == "fills" else args.balance_rows
    epochs = max(1, round(rows / len(data.train)))
    return TrainConfig.from_dict(
        {**TRAIN, **cell.options(), "epochs": epochs, "seed": cell.seed, "max_seconds": args.seconds}
    )


def run(cell: Cell, data: Dataset, args: argparse.Namespace) -> None:
    """Train, judge with every subset, and write the cell."""
    start = time.monotonic()
    fitted = fit_with_history(network(cell, data), data, config(cell, data, args))
    train_s = time.monotonic() - start
    answers, targets = every_subset(fitted.model, data.test), np.asarray(data.test.targets)
    record: dict[str, Any] = {
        "subsets": qualities(answers, targets, data.schema),
        "validation": fitted.quality,
        "steps": fitted.steps,
        "train_s": round(train_s, 2),
        "commit": commit(Path(triptych.__file__)),
    }
    if cell.part == "balance":
        orders = Orders.of(data.schema.names, seed=0)
        found = shapley(answers, targets, data.schema, orders, generator=np.random.default_rng(0))
        record["shapley"] = {name: [one.value, *one.interval] for name, one in found.items()}
    record["seconds"] = round(time.monotonic() - start, 2)
    write_json(cell.path(args.out), record)
    whole = record["subsets"]["+".join(data.schema.names)]
    say(f"{cell.data} {cell.part} {cell.way} {cell.rate:g} seed {cell.seed}: {whole:.3f} in {record['seconds']:.0f} s")


@torch.inference_mode()
def every_subset(model: Multimodal, rows: Split) -> dict[Subset, Floats]:
    """Answers with every subset, each modality encoded once: (rows, outputs), NaN for a row that has nothing of it."""
    names = rows.schema.names
    subsets = [tuple(n for i, n in enumerate(names) if bits >> i & 1) for bits in range(1, 2 ** len(names))]
    found: dict[Subset, list[Floats]] = {subset: [] for subset in subsets}
    with in_eval(model):
        for batch in batches(rows, batch_size=256, seed=0, shuffle=False):
            streams = model.encode_all(batch)
            for subset in subsets:
                given = {name: streams[name] for name in subset if name in streams}
                held = torch.zeros(len(batch), dtype=torch.bool)
                for name in given:
                    held |= batch.present.get(name, torch.ones_like(held))
                empty = torch.full((len(batch), model.outputs), torch.nan)
                output = model.decide(given).float() if given else empty
                found[subset].append(torch.where(held.unsqueeze(1), output, empty).double().numpy())
    return {subset: np.concatenate(parts) for subset, parts in found.items()}


def probe(data: Dataset, args: argparse.Namespace) -> float:
    """Seconds of a whole cell, from the median of a few steps and one judging."""
    cell, ticks = Cell("fills", data.name, "zero", 0.0, 0), [time.monotonic()]
    rows = data.train.subset(range(min(len(data.train), PROBE_STEPS * TRAIN["batch_size"])))
    short = Dataset(data.schema, {"train": rows}, data.about)
    options = TrainConfig.from_dict({**TRAIN, "epochs": 3})  # the first decodes
    fitted = fit_with_history(
        network(cell, data), short, options, progress=lambda _event: ticks.append(time.monotonic())
    )
    step = statistics.median(np.diff(ticks[len(ticks) // 3 :]))
    start = time.monotonic()
    every_subset(fitted.model, data.validation)
    judged = (time.monotonic() - start) / len(data.validation)
    epochs = max(1, round(args.rows / len(data.train)))
    return (
        epochs * (len(data.train) // TRAIN["batch_size"] * step + len(data.validation) * judged / 2)
        + len(data.test) * judged
    )


def estimate(args: argparse.Namespace) -> float:
    """Seconds that the missing cells of all sets would take one after the other; told set by set."""
    total = 0.0
    for name in args.sets:
        left = [cell for cell in cells(args, name) if not cell.path(args.out).exists()]
        seconds = probe(loaded(name), args) * len(left) if left else 0.0
        total += seconds
        say(f"{name}: {len(left)} cells to do, about {seconds / 60:.1f} min")
    say(f"about {total / 60:.0f} min on one core, half of it on two with the sets divided")
    return total


def work(name: str, args: argparse.Namespace) -> None:
    data = loaded(name)
    rows = {split: len(data[split]) for split in ("train", "validation", "test")}
    record = {"metric": data.schema.metric, "modalities": list(data.schema.names), "rows": rows}
    write_json(args.out / name / "set.json", {**record, "environment": environment(threads=1)})
    left = [cell for cell in cells(args, name) if not cell.path(args.out).exists()]
    start = time.monotonic()
    for number, cell in enumerate(left, 1):
        run(cell, data, args)
        each = (time.monotonic() - start) / number
        say(f"{name}: {number} of {len(left)}, about {each * (len(left) - number) / 60:.1f} min left")


def gather(out: Path) -> dict[str, Any]:
    """All that the cells left."""
    sets = {name: of_set(out / name) for name in SETS if (out / name / "set.json").exists()}
    return {
        **read(out / "budget.json"),
        "sets": {name: one for name, one in sets.items() if one["fills"] or one["balance"]},
    }


def of_set(folder: Path) -> dict[str, Any]:
    """By way, rate and seed what the fills gave, and by balance and seed what the balances gave."""
    fills: dict[str, dict[str, list[Any]]] = {}
    balance: dict[str, list[Any]] = {}
    for path in sorted(folder.glob("fills-*.json")):
        _, way, rate, _ = path.stem.split("-")
        fills.setdefault(way, {}).setdefault(f"{int(rate) / 100:g}", []).append(brief(read(path)))
    for path in sorted(folder.glob("balance-*.json")):
        balance.setdefault(path.stem.split("-")[1], []).append(brief(read(path)))
    return {**read(folder / "set.json"), "fills": fills, "balance": balance}


def brief(record: Mapping[str, Any]) -> dict[str, Any]:
    kept = {key: record[key] for key in ("subsets", "shapley", "train_s", "steps", "commit") if key in record}
    return {**kept, "subsets": {name: round(value, 5) for name, value in record["subsets"].items()}}


def numbers(text: str) -> tuple[float, ...]:
    return tuple(float(part) for part in text.split(","))


def words(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="*", metavar="SET", help=f"of {', '.join(SETS)}; all where left out")
    parser.add_argument("--parts", type=words, default=PARTS)
    parser.add_argument("--ways", type=words, default=USUAL_WAYS, help=f"of {', '.join(WAYS)}")
    parser.add_argument("--rates", type=numbers, default=RATES, help="shares of training rows that lack something")
    parser.add_argument("--balances", type=words, default=tuple(sorted(BALANCES)))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=9_600, help="rows that a fill's network trains on, to whole epochs")
    parser.add_argument("--balance-rows", type=int, default=19_200, help="the same of a balance's network")
    parser.add_argument("--seconds", type=float, help="wall limit of one training; left out, none")
    parser.add_argument("--estimate", action="store_true", help="say how long it would take, and stop")
    parser.add_argument("--out", type=Path, default=Path("out/missing"))
    parser.add_argument("--docs", type=Path, default=ROOT / "docs", help="where `record` writes")
    args = parser.parse_args(argv)
    args.sets = args.sets or list(SETS)
    known = {*SETS, *PARTS, *WAYS, *BALANCES}
    if unknown := {*args.sets, *args.parts, *args.ways, *args.balances} - known:
        parser.error(f"unknown {sorted(unknown)}; known are {sorted(known)}")
    return args


def main() -> None:
    args = arguments()
    torch.set_num_threads(1)
    start = time.monotonic()
    if args.estimate:
        print(json.dumps({"estimate_s": round(estimate(args))}))
        return
    budget = {"rows": args.rows, "balance_rows": args.balance_rows, "seconds": args.seconds, "train": dict(TRAIN)}
    same_budget(args.out / "budget.json", budget)
    if {"fills", "balance"} & {*args.parts}:
        for name in args.sets:
            work(name, args)
    if "record" in args.parts:
        write_json(args.docs / "results" / "missing.json", gather(args.out))
        missing_page.write_page(args.docs)
    print(json.dumps({"sets": args.sets, "parts": args.parts, "wall_s": round(time.monotonic() - start, 1)}))


if __name__ == "__main__":
    sys.exit(main())
