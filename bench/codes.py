"""What discrete codes lose of sound that they never heard: residual codebooks against a plain one of as many words.

    python bench/codes.py [--words 1024] [--levels 4] [--epochs 20] [--seeds 0 1 2]

Vectors are log-mel frames of avdigits as the audio stem computes them; codes learn from the training split and are
judged on the test split.  Plain and residual codes hold equally many words, so they cost equally many bytes.  What is
lost is the squared error over the variance of the test frames.  A minute or two.  Data lies in ../shared/data beside
the repository, or where TRIPTYCH_DATA says.  Writes docs/results/codes.json, which docs/mechanisms.md shows; last line:
JSON.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
from pathlib import Path
from typing import Any

import torch
from main_job import write_json
from torch import Tensor

import triptych
from triptych.data.dataset import Split
from triptych.data.loader import batches
from triptych.data.read import load_data
from triptych.measure.environment import commit, environment
from triptych.model import build
from triptych.model.codes import learn_codes
from triptych.model.stems.audio import AudioStem

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "docs" / "results" / "codes.json"
SET, MODALITY = "avdigits", "audio"


def frames(stem: AudioStem, split: Split) -> Tensor:
    """Every real frame of a split: (frames, mels)."""
    found = []
    for batch in batches(split, None, batch_size=256, seed=0, shuffle=False):
        mel, real = stem.log_mel(batch.inputs[MODALITY][:, : stem.samples])
        found.append(mel[real])
    return torch.cat(found)


def lost(levels: int, words: int, train: Tensor, test: Tensor, *, epochs: int, seed: int) -> float:
    """Share of the variance of `test` that codes learnt from `train` lose."""
    codes = learn_codes(train, levels=levels, entries=words // levels, epochs=epochs, seed=seed)
    return float(codes.errors(test)[-1] / (test - train.mean(dim=0)).square().sum(dim=1).mean())


def measured(args: argparse.Namespace) -> dict[str, Any]:
    data = load_data(Path(os.environ.get("TRIPTYCH_DATA", ROOT.parent / "shared" / "data")) / SET)
    stem = build("late_fusion", data.schema, dim=32, depth=0).encoders[MODALITY].stem
    if not isinstance(stem, AudioStem):
        raise SystemExit(f"{SET} has no sound named {MODALITY}")
    train, test = frames(stem, data.train), frames(stem, data.test)
    found = {}
    for name, levels in {"codebook": 1, "residual": args.levels}.items():
        runs = [lost(levels, args.words, train, test, epochs=args.epochs, seed=seed) for seed in args.seeds]
        bits = levels * math.ceil(math.log2(args.words // levels))
        found[name] = {"levels": levels, "bits": bits, "lost": statistics.fmean(runs), "runs": runs}
    return {
        "set": SET,
        "words": args.words,
        "frames": {"train": len(train), "test": len(test)},
        "epochs": args.epochs,
        "seeds": args.seeds,
        "codes": found,
        "commit": commit(Path(triptych.__file__)),
        "environment": environment(threads=torch.get_num_threads()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--words", type=int, default=1024, help="of all levels together")
    parser.add_argument("--levels", type=int, default=4, help="of the residual codes")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    record = measured(args)
    write_json(RESULT, record)
    print(json.dumps({name: one["lost"] for name, one in record["codes"].items()}))


if __name__ == "__main__":
    main()
