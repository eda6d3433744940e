"""docs/backbones.md from docs/results/backbones.json and adapters.json, as far as they are there.

python bench/backbones_page.py
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

from fusion_page import interval
from words import mb, plus_minus, span, table

ROOT = Path(__file__).resolve().parents[1]
ABOUT = "Written by `python bench/backbones.py` and `python bench/adapters.py`. Do not edit."
WAYS = {
    "frozen": "backbones frozen, each row through them once",
    "adapted": "LoRA in every dense layer, backbones' too, and all but the backbones trained",
    "tuned": "everything trained",
    "fresh": "everything trained, from fresh weights (control)",
}
ABOUT_ADAPTERS = (
    "*Quality* is the mean over the seeds, ± half of its 95 % interval (Student's t); *gain* the same of the"
    " differences to the head alone, seed by seed. Memory and seconds are the first seed's; seconds hold what else the"
    " machine did meanwhile, so small differences between them say nothing."
)
ADAPTER_HEAD = ("adapter", "trained numbers", "memory of training", "per step", "quality on test", "gain")
Record = Mapping[str, Any]


def page(backbones: Record | None, adapters: Record | None) -> str:
    """The whole page as Markdown."""
    parts = ["# Pretrained backbones and adapters", ABOUT]
    parts += [] if backbones is None else backbone_parts(backbones)
    parts += [] if adapters is None else adapter_parts(adapters)
    return "\n\n".join(parts) + "\n"


def backbone_parts(record: Record) -> list[str]:
    parts = ["## Frozen, adapted, tuned, and from fresh weights"]
    for name, one in record["sets"].items():
        families = ", ".join(f"{family} for {modality}" for modality, family in one["families"].items())
        parts += [
            f"### {name}",
            told(families, one, record),
        ]
        head = ("way", f"{one['metric']} on test", "95 %", "trained numbers", "memory of training", "s", "epochs")
        lines = []
        for way, runs in one["ways"].items():
            first = next(iter(runs.values()))
            lines.append(
                (
                    WAYS[way],
                    f"{fmean(run['test'] for run in runs.values()):.3f}",
                    span(first["test_interval"], lambda v: f"{v:.3f}"),
                    f"{first['learnt']:,} ({first['learnt'] / first['params']:.1%})",
                    f"{mb(first['training_bytes'])} MB",
                    f"{first['seconds']:.0f}",
                    f"{first['epochs']:.1f}",
                )
            )
        parts.append(table(head, lines))
    return parts


def told(families: str, one: Record, record: Record) -> str:
    rows = one["rows"]
    return (
        f"{families}; {rows['train']:,} rows of training, {rows['validation']:,} of validation and all"
        f" {rows['test']:,} of test; at most {record['epochs']} epochs and {record['minutes']:g} minutes of training"
        " per run, one thread; what frozen backbones answer is worked out first, of every split, and counts in the"
        " seconds. A backbone of convolutions has no dense layer: LoRA reaches the blocks after it alone."
        f" {setting(one['environment'])}"
    )


def adapter_parts(record: Record) -> list[str]:
    parts = ["## Adapters", ABOUT_ADAPTERS]
    for name, one in record["sets"].items():
        parts += [f"### On {name}", adapters_told(one)]
        rows = [(row, *cells(figures), gain(figures, one["rows"])) for row, figures in one["rows"].items()]
        parts.append(table(ADAPTER_HEAD, rows))
    return parts


def adapters_told(record: Record) -> str:
    options = record["options"]
    cap = f" and {options['minutes']:g} minutes" if options.get("minutes") else ""
    cut = f" {options['train_rows']:,} rows of training." if options.get("train_rows") else ""
    return (
        f"Every row trains {', '.join(options['also'])} beside the adapter, at most {options['epochs']} epochs{cap}, in"
        f" a process of its own with one thread, {options['seeds']} seed{'s' * (options['seeds'] > 1)}.{cut}"
        f" {setting(record['environment'])}"
    )


def cells(row: Record) -> tuple[str, ...]:
    """One adapter's figures, or why there are none."""
    if "error" in row:
        return ("–", "–", "–", row["error"])
    memory = "–" if row["training_bytes"] is None else f"{row['training_bytes'] / 1e6:,.0f} MB"
    step = "–" if row["step_s"] is None else f"{1e3 * row['step_s']:,.0f} ms"
    return (f"{row['params']:,} ({row['share']:.1%})", memory, step, plus_minus(*interval(row["quality"])))


def gain(row: Record, rows: Mapping[str, Record]) -> str:
    """By how much it is better than the head alone, seed by seed."""
    control = rows.get("frozen", {})
    if row is control or "quality" not in row or "quality" not in control:
        return "–"
    return plus_minus(*interval([a - b for a, b in zip(row["quality"], control["quality"], strict=True)]), sign="+")


def setting(machine: Record) -> str:
    return f"{machine['cpu']}, torch {machine['packages']['torch']}; commit {machine['commit'][:12]}."


def load(results: Path, name: str) -> Record | None:
    path = results / f"{name}.json"
    found: Record | None = json.loads(path.read_text()) if path.is_file() else None
    return found


def write_page(docs: Path) -> None:
    """Write the page."""
    results = docs / "results"
    (docs / "backbones.md").write_text(page(load(results, "backbones"), load(results, "adapters")))


if __name__ == "__main__":
    write_page(ROOT / "docs")
    print(json.dumps({"page": "docs/backbones.md"}))
