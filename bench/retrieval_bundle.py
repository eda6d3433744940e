"""Retrieval from a bundle alone, without torch: one side's vectors become an index, which the other side asks.

    python bench/retrieval_bundle.py BUNDLE DATASET TARGETS.npy [--rows 0]

TARGETS holds (rows, 2) whole numbers, equal where values of the test split's rows are equal, as `Split.targets` does.
`bench/retrieval.py --bundle` runs this in a process of its own.  Last line: JSON.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triptych.system.runtime import Bundle, Index

MOST = 10
Rows = Sequence[tuple[str, Mapping[str, Any]]]


def answered(bundle: Bundle, rows: Rows, targets: NDArray[Any], folder: Path) -> dict[str, Any]:
    """Recall at 1 and at 10 in both directions, as searches in an index that was saved and loaded find it."""
    sides, names = bundle.schema.pair, [name for name, _ in rows]
    place = {name: number for number, name in enumerate(names)}
    started = time.perf_counter()
    vectors = {side: bundle.embed_many([{side: row[side]} for _, row in rows]) for side in sides}
    found: dict[str, Any] = {"rows": len(rows), "embed_s": (time.perf_counter() - started) / (2 * len(rows))}
    searching = 0.0
    for asking, asked in (sides, sides[::-1]):
        index = Index(vectors[asked].shape[1], modality=asked, space=bundle.space)
        index.add(names, vectors[asked])
        index.save(folder / f"{asked}.safetensors")
        index = Index.load(folder / f"{asked}.safetensors")
        started = time.perf_counter()
        matches = [[place[match.id] for match in one] for one in index.search_many(vectors[asking], MOST)]
        searching += time.perf_counter() - started
        right = [[bool((targets[row] == targets[n]).any()) for row in one] for n, one in enumerate(matches)]
        for most in (1, MOST):
            found[f"{asking}_to_{asked}_recall_at_{most}"] = sum(any(one[:most]) for one in right) / len(rows)
    return {**found, "search_s": searching / (2 * len(rows))}


def from_bundle(bundle: Path, dataset: Path, targets: NDArray[Any], *, rows: int = 0) -> dict[str, Any]:
    """`answered` for the first test rows (0: all) in a process that never loads torch."""
    with tempfile.TemporaryDirectory(prefix="triptych-retrieval-") as made:
        path = Path(made) / "targets.npy"
        np.save(path, np.asarray(targets, np.int64))
        command = [sys.executable, __file__, str(bundle), str(dataset), str(path), "--rows", str(rows)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    if found.pop("loaded_torch"):
        raise RuntimeError("the bundle was to answer without torch, but something loaded it")
    return found


def main() -> None:
    from triptych.cli_predict import rows_of

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("targets", type=Path)
    parser.add_argument("--rows", type=int, default=0)
    args = parser.parse_args()
    bundle = Bundle.load(args.bundle, check_golden=True)
    rows = list(islice(rows_of(bundle.schema, args.dataset, split="test"), args.rows or None))
    with tempfile.TemporaryDirectory(prefix="triptych-index-") as made:
        found = answered(bundle, rows, np.load(args.targets, allow_pickle=False), Path(made))
    print(json.dumps({**found, "loaded_torch": "torch" in sys.modules}))


if __name__ == "__main__":
    main()
