"""Sounds as discrete codes: what a network reads from one, two, four numbers per token in place of log-mel frames.

    python bench/coded.py                    # ravdess and avdigits, three seeds
    python bench/coded.py ravdess --seeds 1
    python bench/coded.py --stages record    # write docs again from what is there

The log-mel frames of a token become a vector; residual codebooks of `--entries` words are learnt on the training rows'
vectors, and every split is encoded by them.  The networks are those of `parts.py`, alike but for the stem of the sound:
`audio` reads the frames, the control, and `codes` so many levels.  Each trains on about as many rows.  What is under
out/SET is kept.  Writes docs/results/coded.json, and from that alone docs/coded.md.  Data as in fusion.py.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import coded_page
import fusion
import numpy as np
import torch
from main_job import write_json
from parts import SIZES
from torch import Tensor

import triptych
from triptych.data.dataset import Dataset, Split
from triptych.data.loader import batches
from triptych.measure.environment import commit, environment
from triptych.model import Multimodal, build
from triptych.model.codes import ResidualCodebooks, learn_codes
from triptych.model.stems import AudioStem
from triptych.schema import Modality
from triptych.train import TrainConfig
from triptych.train.loop import fit_with_history

ROOT = Path(__file__).resolve().parents[1]
SETS = ("ravdess", "avdigits")
SOUND = "audio"
LEVELS = (1, 2, 4)
MOST_VECTORS = 50_000  # that codebooks learn from


def network(data: Dataset, seed: int) -> Multimodal:
    torch.manual_seed(seed)
    special = {modality.name: fusion.grain(modality) for modality in data.schema.modalities}
    return build("late_fusion", data.schema, modalities=special, **SIZES)


@torch.no_grad()
def vectors(stem: AudioStem, split: Split) -> Iterator[tuple[np.ndarray, Tensor, Tensor]]:
    """Batch by batch: numbers in the table, what the stem projects (batch, tokens, width), which of it is real."""
    done = 0
    for batch in batches(split, batch_size=64, seed=0, shuffle=False):
        x, real = stem.runs(batch.inputs[SOUND])
        yield split.numbers[done : done + len(batch)], x, real
        done += len(batch)


def learnt(stem: AudioStem, data: Dataset, levels: int, entries: int) -> ResidualCodebooks:
    """Codebooks of the training rows' vectors."""
    found = torch.cat([x[real] for _, x, real in vectors(stem, data.train)])
    chosen = torch.randperm(len(found), generator=torch.Generator().manual_seed(0))[:MOST_VECTORS]
    return learn_codes(found[chosen], levels=levels, entries=entries)


@torch.inference_mode()
def coded(stem: AudioStem, data: Dataset, books: ResidualCodebooks) -> Dataset:
    """The data with codes in the place of its sound."""
    old, levels, entries = data.schema[SOUND], len(books.books), len(books.books[0].words)
    new = Modality(SOUND, "codes", old.column, channels=levels, max_tokens=stem.tokens, vocabulary=entries + 1)
    others = tuple(new if modality is old else modality for modality in data.schema.modalities)
    schema = dataclasses.replace(data.schema, modalities=others)
    splits = {}
    for split in data.splits.values():
        values = np.zeros((len(split.table), new.max_tokens, levels), np.int64)
        for numbers, x, real in vectors(stem, split):
            values[numbers] = ((books.encode(x) + 1) * real.unsqueeze(2)).numpy()
        splits[split.name] = dataclasses.replace(split, table=split.table.providing(new, values), schema=schema)
    return Dataset(schema, splits, data.about)


def run(name: str, data: Dataset, seed: int, args: argparse.Namespace) -> None:
    """Train and judge one network; what was done before is left alone."""
    done = args.out / data.name / f"{name}-{seed}.json"
    if done.exists():
        return
    epochs = max(1, round(args.rows / len(data.train)))
    config = TrainConfig.from_dict({**fusion.TRAIN, "epochs": epochs, "seed": seed})
    start = time.monotonic()
    model = fit_with_history(network(data, seed), data, config).model
    found = {
        "quality": fusion.answered(model, data.test, data.schema.names),
        "train_s": round(time.monotonic() - start, 2),
        "params": sum(p.numel() for p in model.parameters()),
        "commit": commit(Path(triptych.__file__)),
    }
    write_json(done, found)
    fusion.say(f"{data.name} {name} {seed}: {data.schema.metric} {found['quality']:.3f} in {found['train_s']:.0f} s")


def run_set(data: Dataset, args: argparse.Namespace) -> None:
    stem = network(data, 0).encoders[SOUND].stem
    assert isinstance(stem, AudioStem)
    for seed in range(args.seeds):
        run("audio", data, seed, args)
    test = torch.cat([x[real] for _, x, real in vectors(stem, data.test)])
    spread = (test - test.mean(dim=0)).square().sum(dim=1).mean()
    left = {}
    for levels in LEVELS:
        books = learnt(stem, data, levels, args.entries)
        left[str(levels)] = (books.errors(test)[-1] / spread).item()
        instead = coded(stem, data, books)
        for seed in range(args.seeds):
            run(f"codes-{levels}", instead, seed, args)
    about = {"metric": data.schema.metric, "tokens": stem.tokens, "width": test.shape[1], "left": left}
    write_json(args.out / data.name / "set.json", {**about, "environment": environment(threads=1)})


def gather(args: argparse.Namespace) -> dict[str, Any]:
    sets = {}
    for name in SETS:
        folder = args.out / name
        if (folder / "set.json").exists():
            runs = {
                member: [fusion.read(path) for path in sorted(folder.glob(f"{member}-[0-9].json"))]
                for member in ("audio", *(f"codes-{levels}" for levels in LEVELS))
            }
            members = {
                member: {
                    "quality": [one["quality"] for one in found],
                    "mean": statistics.fmean(one["quality"] for one in found),
                    "params": found[0]["params"],
                    "commits": sorted({one["commit"] for one in found if one["commit"]}),
                }
                for member, found in runs.items()
            }
            sets[name] = {**fusion.read(folder / "set.json"), "members": members}
    return {"options": {"rows": args.rows, "entries": args.entries, "seeds": args.seeds, "sizes": SIZES}, "sets": sets}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="*", metavar="SET", help=f"of {', '.join(SETS)}; all where left out")
    parser.add_argument("--stages", default="train,record")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=9_600, help="rows that a network trains on, to whole epochs")
    parser.add_argument("--entries", type=int, default=256, help="words of a codebook")
    parser.add_argument("--out", type=Path, default=Path("out/coded"))
    parser.add_argument("--docs", type=Path, default=ROOT / "docs", help="where `record` writes")
    args = parser.parse_args()
    sets = args.sets or list(SETS)
    if unknown := {*sets} - {*SETS}:
        parser.error(f"unknown {sorted(unknown)}; sets are {SETS}")
    torch.set_num_threads(1)
    start = time.monotonic()
    fusion.same_budget(args.out / "budget.json", {key: getattr(args, key) for key in ("rows", "entries")})
    for name in sets if "train" in args.stages else ():
        run_set(fusion.loaded(name), args)
    if "record" in args.stages:
        write_json(args.docs / "results" / "coded.json", gather(args))
        coded_page.write_page(args.docs)
    print(json.dumps({"sets": sets, "wall_s": round(time.monotonic() - start, 1)}))


if __name__ == "__main__":
    main()
