"""Stems, channel blocks and connectors, one at a time: quality, parameters and latency against their control.

    python bench/parts.py                                # every trial, three seeds; 40 minutes with --rows 4800
    python bench/parts.py STEMS CONNECTORS --seeds 1     # some families
    python bench/parts.py --stages record                # write docs again from what is there

A trial takes one set, swaps one part of the networks of `fusion.py` (late fusion, width 64, here two blocks) in some of
the modalities and leaves all else as it is.  Each network trains on about as many rows (`--rows`, to whole epochs) and
is judged on the test split.  What is under out/TRIAL/MEMBER-SEED.json is kept; the first seed's bundles are timed in
turns, one thread.  Writes docs/results/parts.json, and from that alone docs/parts.md.  Data as in fusion.py.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fusion
import parts_page
import torch
from against import fewer
from main_job import write_json

import triptych
from triptych.data.dataset import Dataset
from triptych.measure import measure
from triptych.measure.environment import commit, environment
from triptych.model import Multimodal, build
from triptych.system.bundle.export import export
from triptych.train import TrainConfig
from triptych.train.loop import fit_with_history

ROOT = Path(__file__).resolve().parents[1]
SIZES: Mapping[str, Any] = {**fusion.SIZES, "depth": 2}
NONE = "none"


@dataclass(frozen=True)
class Trial:
    """family: its registry; kinds: modalities whose `option` is each of `members` in turn, the first as control"""

    family: str
    set: str
    kinds: tuple[str, ...]
    option: str
    members: tuple[str, ...]
    sizes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def title(self) -> str:
        return f"{self.family.lower()}-{self.set}-{'-'.join(self.kinds)}"


CHANNELS = ("mlp", "gated_mlp", "kan", "elastic_mlp", "low_rank_experts", "experts")
CONNECTORS = (
    NONE,
    "linear",
    "mlp",
    "concat_pool",
    "pixel_shuffle",
    "resampler",
    "q_former",
    "region_cross_attention",
    "deep_stack",
)
TRIALS = (
    Trial("STEMS", "sisfall", ("series",), "form", ("series", "norms", "convolved", "statistics", "summary")),
    Trial("STEMS", "icu", ("series",), "form", ("series", "convolved", "statistics", "graded", "summary")),
    Trial("STEMS", "ravdess", ("audio",), "form", ("audio", "profile")),
    Trial("CHANNELS", "avdigits", ("image", "audio"), "channel", CHANNELS),
    Trial("CHANNELS", "avdigits", ("image",), "channel", ("mlp", "inverted_bottleneck")),
    Trial("CHANNELS", "sisfall", ("series",), "channel", CHANNELS),
    Trial("CONNECTORS", "avdigits", ("image", "audio"), "connector", CONNECTORS),
    Trial("CONNECTORS", "fashion", ("image",), "connector", CONNECTORS, {"image": {"patch": 24}}),
)


def network(trial: Trial, member: str, data: Dataset, seed: int) -> Multimodal:
    """A fresh network of the common sizes with this member."""
    torch.manual_seed(seed)
    special = {}
    for modality in data.schema.modalities:
        special[modality.name] = {**fusion.grain(modality), **trial.sizes.get(modality.kind, {})}
        if modality.kind in trial.kinds and member != NONE:
            special[modality.name][trial.option] = member
    return build("late_fusion", data.schema, modalities=special, **SIZES)


def run(trial: Trial, member: str, data: Dataset, seed: int, args: argparse.Namespace) -> None:
    """Train and judge one network; the first seed's is kept as a bundle.  What was done before is left alone."""
    done = args.out / trial.title / f"{member}-{seed}.json"
    if done.exists():
        return
    epochs = max(1, round(args.rows / len(data.train)))
    config = TrainConfig.from_dict({**fusion.TRAIN, "epochs": epochs, "seed": seed})
    start = time.monotonic()
    model = fit_with_history(network(trial, member, data, seed), data, config).model
    train_s = time.monotonic() - start
    if seed == 0:
        export(model, done.parent / member, data)
    record = {
        "quality": fusion.answered(model, data.test, data.schema.names),
        "train_s": round(train_s, 2),
        "params": sum(p.numel() for p in model.parameters()),
        "commit": commit(Path(triptych.__file__)),
    }
    write_json(done, record)
    fusion.say(f"{trial.title} {member} seed {seed}: {data.schema.metric} {record['quality']:.3f} in {train_s:.0f} s")


def timed(trial: Trial, data: Dataset, args: argparse.Namespace) -> None:
    """Latency of a trial's bundles, in turns in processes of their own."""
    folder = args.out / trial.title
    if (folder / "measure.json").exists():
        return
    bundles = {name: folder / name for name in trial.members}
    found = measure(bundles, fewer(data), threads=1, repeat=args.repeat, parts=False)
    keys = ("p50_s", "p50_ratio", "p50_ratio_interval", "size_bytes")
    told = {name: {key: getattr(report, key) for key in keys} for name, report in found.items()}
    write_json(
        folder / "measure.json",
        {"metric": data.schema.metric, "bundles": told, "environment": environment(threads=1)},
    )


def gather(out: Path, options: Mapping[str, Any]) -> dict[str, Any]:
    """Finished trials by their title."""
    found = {trial.title: of_trial(trial, out / trial.title) for trial in TRIALS}
    return {"options": dict(options), "trials": {title: one for title, one in found.items() if one}}


def of_trial(trial: Trial, folder: Path) -> dict[str, Any] | None:
    if not (folder / "measure.json").exists():
        return None
    measured = fusion.read(folder / "measure.json")
    members = {}
    for name in trial.members:
        runs = [fusion.read(path) for path in sorted(folder.glob(f"{name}-[0-9]*.json"))]
        members[name] = {
            "quality": [one["quality"] for one in runs],
            "params": runs[0]["params"],
            "commits": sorted({one["commit"] for one in runs if one["commit"]}),
            **measured["bundles"][name],
        }
    about = {"family": trial.family, "set": trial.set, "kinds": list(trial.kinds), "metric": measured["metric"]}
    return {**about, "environment": measured["environment"], "members": members}


def arguments() -> argparse.Namespace:
    families = sorted({trial.family for trial in TRIALS})
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("families", nargs="*", metavar="FAMILY", help=f"of {', '.join(families)}; all where left out")
    parser.add_argument("--stages", default="run,record")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=9_600, help="rows that a network trains on, to whole epochs")
    parser.add_argument("--repeat", type=int, default=200, help="timed predictions per bundle")
    parser.add_argument("--out", type=Path, default=Path("out/parts"))
    parser.add_argument("--docs", type=Path, default=ROOT / "docs", help="where `record` writes")
    args = parser.parse_args()
    args.families, args.stages = args.families or families, args.stages.split(",")
    if unknown := {*args.families} - {*families} | {*args.stages} - {"run", "record"}:
        parser.error(f"unknown {sorted(unknown)}; families are {families}, stages run and record")
    return args


def left(args: argparse.Namespace) -> Iterator[tuple[Trial, Dataset]]:
    for trial in TRIALS:
        if trial.family in args.families and not (args.out / trial.title / "measure.json").exists():
            yield trial, fusion.loaded(trial.set)


def main() -> None:
    args = arguments()
    torch.set_num_threads(1)
    start = time.monotonic()
    fusion.same_budget(args.out / "budget.json", {"rows": args.rows, "seeds": args.seeds})
    for trial, data in left(args) if "run" in args.stages else ():
        for seed in range(args.seeds):
            for member in trial.members:
                run(trial, member, data, seed, args)
        timed(trial, data, args)
    if "record" in args.stages:
        record = gather(args.out, {"rows": args.rows, "seeds": args.seeds, "train": fusion.TRAIN, "sizes": SIZES})
        write_json(args.docs / "results" / "parts.json", record)
        parts_page.write_page(args.docs)
    print(json.dumps({"trials": [trial.title for trial in TRIALS], "wall_s": round(time.monotonic() - start, 1)}))


if __name__ == "__main__":
    main()
