"""Measure one set's candidates against each other, with one thread and with two; leaves measure.json.

python bench/against.py DATA FOLDER
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
from openvino_int8 import peer

from triptych.data.dataset import Dataset
from triptych.data.read import load_data
from triptych.measure import Report, measure
from triptych.measure.candidate import Peer
from triptych.measure.clock import ratio

OURS = "triptych"
THREADS = (1, 2)
QUIET_LOAD = 0.5
SPEED_ROWS = 256  # with more than one thread only speed and memory are asked for, and a few rows suffice
SPEED = (
    "p50_s",
    "p95_s",
    "p50_ratio",
    "p50_ratio_interval",
    "round_medians_s",
    "samples_per_round",
    "rounds",
    "threads",
)
MEMORY = ("peak_bytes", "peak_bytes_total", "floor_bytes", "size_bytes", "bundle_bytes")


def candidates(folder: Path) -> dict[str, Path | Peer]:
    """The PyTorch reference first: all others are compared to it."""
    return {
        "reference": folder / "fit" / "reference",
        "onnxruntime-float32": folder / "peers" / "onnxruntime-float32",
        "openvino-int8": peer(folder / "peers" / "openvino-int8"),
        "dense-half": folder / "dense-half" / "bundle",
        "dense-quarter": folder / "dense-quarter" / "bundle",
        OURS: folder / "fit" / "bundle",
    }


def direct(reports: dict[str, Report]) -> dict[str, Any]:
    """Our seconds by each other candidate's, round by round."""
    ours, generator = reports[OURS], np.random.default_rng(0)
    found = {}
    for name, report in reports.items():
        if name != OURS:
            value, interval = ratio(ours.samples_s or (), report.samples_s or (), ours.rounds or 1, generator=generator)
            found[name] = {"ratio": value, "interval": list(interval)}
    return found


def slim(report: Report) -> dict[str, Any]:
    """A report as plain values: the median of each round for the raw samples, the machine only once per set."""
    record = report.to_dict()
    samples = np.asarray(record.pop("samples_s")).reshape(record["rounds"], -1)
    record["round_medians_s"] = np.median(samples, axis=1).tolist()
    record["samples_per_round"] = samples.shape[1]
    record["worker"] = record.pop("environment")["worker"]
    for part in record.get("parts", {}).values():
        part.pop("samples_s", None)
    return record


def fewer(data: Dataset) -> Dataset:
    """The same test split, thinned out."""
    rows = np.unique(np.linspace(0, len(data.test) - 1, min(SPEED_ROWS, len(data.test))).astype(int))
    return Dataset(data.schema, {**data.splits, "test": data.test.subset(rows)}, data.about)


def wait_for_quiet(patience_s: float) -> None:
    """Wait until hardly anything else runs, or patience ends; the load is recorded either way."""
    until = time.monotonic() + patience_s
    while os.getloadavg()[0] > QUIET_LOAD and time.monotonic() < until:
        time.sleep(5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--repeat", type=int, default=200)
    parser.add_argument("--patience", type=float, default=300.0, help="seconds to wait for a quiet machine")
    args = parser.parse_args()
    data, start = load_data(args.data), time.monotonic()
    wait_for_quiet(args.patience)
    record: dict[str, Any] = {"reports": {}, "direct": {}, "environment": {}}
    for threads in THREADS:
        whole = threads == THREADS[0]
        kept = args.folder / "predictions" if whole else None
        options = {"repeat": args.repeat, "threads": threads, "parts": whole, "folder": kept}
        reports = measure(candidates(args.folder), data if whole else fewer(data), **options)
        slender = {name: slim(report) for name, report in reports.items()}
        if not whole:
            slender = {name: {k: v for k, v in r.items() if k in SPEED + MEMORY} for name, r in slender.items()}
        record["reports"][str(threads)] = slender
        record["direct"][str(threads)] = direct(reports)
        machine = dict(reports[OURS].environment)
        machine.pop("worker")
        record["environment"][str(threads)] = machine
    record["seconds"] = round(time.monotonic() - start, 1)
    (args.folder / "measure.json").write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps({"folder": str(args.folder), "seconds": record["seconds"]}))


if __name__ == "__main__":
    main()
