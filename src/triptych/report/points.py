"""The points of the quality scatter, for the page and the plots alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from triptych.report import words
from triptych.report.model import RunRecord, plain

AXES = (
    ("p50_s", "Latency", "median time for one example", words.seconds),
    ("size_bytes", "Size", "bytes that must be shipped", words.size),
    ("peak_bytes", "Memory", "peak above the bare interpreter", words.size),
)


def points(run: RunRecord) -> list[dict[str, Any]]:
    """Everything with a quality: name, role (reference, chosen, other, step, rejected) and figures."""
    found = [_point(name, _role(run, name), report) for name, report in run.reports.items()]
    found += [_point(_name(step, i), "step", step) for i, step in enumerate(run.steps)]
    found += [_point(_name(item, i), "rejected", item) for i, item in enumerate(run.rejected)]
    return [point for point in found if point["quality"] is not None]


def _role(run: RunRecord, name: str) -> str:
    return {run.reference: "reference", run.chosen: "chosen"}.get(name, "other")


def _name(item: Mapping[str, Any], index: int) -> str:
    return str(item.get("name") or f"step {index + 1}")


def _point(name: str, role: str, figures: Mapping[str, Any]) -> dict[str, Any]:
    keys = ("quality", "quality_interval", *(axis[0] for axis in AXES), "reason")
    return {"name": name, "role": role, **{key: plain(figures.get(key)) for key in keys}}


def floor_quality(run: RunRecord) -> float | None:
    """The quality below which the budget calls a candidate too poor; None without a limit."""
    limits = []
    lower_is_better = run.metric in words.LOWER_IS_BETTER
    if run.budget.get("min_quality") is not None:
        limits.append(float(run.budget["min_quality"]))
    reference = run.reports.get(run.reference, {}).get("quality")
    if run.budget.get("max_drop") is not None and reference is not None:
        drop = float(run.budget["max_drop"])
        limits.append(reference + drop if lower_is_better else reference - drop)
    if not limits:
        return None
    return min(limits) if lower_is_better else max(limits)


def scatter_data(run: RunRecord) -> dict[str, Any]:
    """What the page's script draws; every text in it is shown as text, never as markup."""
    drawn = points(run)
    for point in drawn:
        point["text"] = {
            "quality": words.quality(point["quality"], run.metric),
            "interval": words.interval(point["quality_interval"], lambda v: words.quality(v, run.metric)),
            **{key: write(point[key]) for key, _, _, write in AXES},
        }
    return {
        "metric": words.METRICS.get(run.metric, run.metric),
        "share": run.metric in words.SHARES,
        "lowerIsBetter": run.metric in words.LOWER_IS_BETTER,
        "floor": floor_quality(run),
        "axes": [{"key": k, "name": n, "about": a, "limit": run.budget.get(k)} for k, n, a, _ in AXES],
        "points": drawn,
    }


def ledger(run: RunRecord) -> dict[str, dict[str, Any]]:
    """Cost and worth by modality: what the chosen model's report measured, completed by `run.modalities`."""
    parts = run.reports.get(run.chosen, {}).get("parts", {})
    kinds = {m["name"]: m.get("kind", "") for m in run.schema.get("modalities", ()) if "name" in m}
    names = [name for name in (*kinds, *run.modalities) if name in parts or name in run.modalities]
    keys = ("p50_s", "flops", "params", "worth", "worth_interval", "kept", "skipped")
    return {
        name: {
            "kind": kinds.get(name, ""),
            **{key: parts[name][key] for key in keys if key in parts.get(name, {})},
            **run.modalities.get(name, {}),
        }
        for name in dict.fromkeys(names)
    }
