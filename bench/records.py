"""One set's stage results to one JSON file, with the targets and whether they were met."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from triptych.measure.quality import higher_is_better
from triptych.search.recipes import reference_recipe

FIT_WALL_S = 1200
FIT_MEMORY_BYTES = 6_000_000_000
RATIOS = {"latency": ("p50_s", 0.10), "memory": ("peak_bytes", 0.20), "size": ("size_bytes", 0.05)}
DROP, DROP_UPPER, SPEED_UP = 0.005, 0.02, 3.0
OURS, REFERENCE, INT8 = "triptych", "reference", "openvino-int8"
LADDER = ("dense-half", "dense-quarter")
FUSED = ("avdigits", "sisfall", "ravdess", "icu")  # where joining the modalities is known to gain


def write_record(folder: Path, target: Path) -> None:
    """Gather what the stages left in `folder`."""
    found = gather(folder)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(found, indent=1) + "\n")


def gather(folder: Path) -> dict[str, Any]:
    run, fit, measured = (read(folder / name) for name in ("fit/run.json", "fit.json", "measure.json"))
    fit["line"] = {key: value for key, value in fit["line"].items() if key not in {"bundle", "report"}}
    history, metric = read(folder / "reference-history.json"), run["schema"]["metric"]
    record = {
        "set": folder.name,
        "metric": metric,
        "fit": fit,
        "training": training(history, reference_recipe(folder.name)[1], metric),
        "steps": run["steps"],
        "reports": measured["reports"],
        "direct": measured["direct"],
        "ladder": {name: read(folder / name / "done.json") for name in LADDER},
        "singles": {path.parent.name: read(path) for path in sorted(folder.glob("singles/*/done.json"))},
        "peers": {INT8: read(folder / "peers" / INT8 / "done.json")},
        "environment": measured["environment"],
    }
    return {**record, "targets": targets(record)}


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def training(history: Sequence[Mapping[str, Any]], options: Mapping[str, Any], metric: str) -> dict[str, Any]:
    """How the reference trained: best validation so far after each quarter of its seconds, and what ended it."""
    qualities, last = [gain(entry["quality"], 0.0, metric) for entry in history], history[-1]
    best = qualities.index(max(qualities))
    ended = "its cap of wall time"
    if last["epoch"] >= options["epochs"]:
        ended = "its number of epochs"
    elif len(history) - 1 - best >= options["patience"]:
        ended = "no gain in validation"
    quarters = []
    for part in (0.25, 0.5, 0.75, 1.0):
        seen = [
            q for q, entry in zip(qualities, history, strict=True) if entry["elapsed_s"] <= part * last["elapsed_s"]
        ]
        quarters.append(abs(max(seen)) if seen else None)
    return {"epochs": round(last["epoch"], 1), "seconds": last["elapsed_s"], "quarters": quarters, "ended": ended}


def targets(record: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """By name: the figure, its limit, and whether it was met; figures are of the run with one thread."""
    reports = record["reports"]["1"]
    ours, reference = reports[OURS], reports[REFERENCE]
    found = {"latency": at_most(ours["p50_ratio"], RATIOS["latency"][1])}
    for name in ("memory", "size"):
        field, limit = RATIOS[name]
        found[name] = at_most(ours[field] / reference[field], limit)
    found["drop"] = at_most(ours["drop"], DROP)
    found["drop_upper"] = at_most(ours["drop_interval"][1], DROP_UPPER)
    found["int8"] = at_least(1 / record["direct"]["1"][INT8]["ratio"], SPEED_UP)
    beaten_by = [name for name in LADDER if dominates(reports[name], ours, record["metric"])]
    found["front"] = {"value": len(beaten_by), "limit": 0, "met": not beaten_by, "beaten_by": beaten_by}
    if record["set"] in FUSED:
        found["fused"] = over_best_single(record)
    found["fit_wall"] = at_most(record["fit"]["wall_s"], FIT_WALL_S)
    found["fit_memory"] = at_most(record["fit"]["peak_rss_bytes"], FIT_MEMORY_BYTES)
    return found


def at_most(value: float, limit: float) -> dict[str, Any]:
    return {"value": value, "limit": limit, "met": value <= limit + 1e-9}


def at_least(value: float, limit: float) -> dict[str, Any]:
    return {"value": value, "limit": limit, "met": value >= limit - 1e-9}


def dominates(other: Mapping[str, Any], ours: Mapping[str, Any], metric: str) -> bool:
    """At least as fast and at least as good."""
    return other["p50_ratio"] <= ours["p50_ratio"] and gain(other["quality"], ours["quality"], metric) >= 0


def gain(quality: float, other: float, metric: str) -> float:
    """By how much a quality is better than another one."""
    return quality - other if higher_is_better(metric) else other - quality


def over_best_single(record: Mapping[str, Any]) -> dict[str, Any]:
    """By how much the reference, and the delivered network, beat the best network that has one modality."""
    metric, reports = record["metric"], record["reports"]["1"]
    qualities = {name: single["test"]["quality"] for name, single in record["singles"].items()}
    best = max(qualities, key=lambda name: gain(qualities[name], 0.0, metric))
    ours, theirs = (gain(reports[name]["quality"], qualities[best], metric) for name in (OURS, REFERENCE))
    return {
        "value": theirs,
        "limit": 0,
        "met": theirs > 0,
        "best": best,
        "best_quality": qualities[best],
        "delivered": ours,
    }
