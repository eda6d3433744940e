"""docs/backbones.md from docs/results/backbones.json and adapters.json, as far as they are there.

python bench/backbones_page.py
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

from words import mb, span, table

ROOT = Path(__file__).resolve().parents[1]
ABOUT = "Written by `python bench/backbones.py` and `python bench/adapters.py`. Do not edit."
WAYS = {
    "frozen": "backbones frozen, each row through them once",
    "adapted": "LoRA in every dense layer, backbones' too, and all but the backbones trained",
    "tuned": "everything trained",
    "fresh": "everything trained, from fresh weights (control)",
}
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
    options = record["options"]
    cap = f" and {options['minutes']:g} minutes" if options.get("minutes") else ""
    cut = f" {options['train_rows']:,} rows of training." if options.get("train_rows") else ""
    told = (
        f"{record['data']}; every row trains {', '.join(options['also'])} beside the adapter, at most"
        f" {options['epochs']} epochs{cap}, in a process of its own with one thread.{cut}"
        f" {setting(record['environment'])}"
    )
    head = ("adapter", "trained numbers", "memory of training", "per step", "quality on test")
    return ["## Adapters", told, table(head, [(name, *cells(row)) for name, row in record["rows"].items()])]


def cells(row: Record) -> tuple[str, ...]:
    """One adapter's figures, or why there are none."""
    if "error" in row:
        return ("–", "–", "–", row["error"])
    memory = "–" if row["training_bytes"] is None else f"{row['training_bytes'] / 1e6:,.0f} MB"
    step = "–" if row["step_s"] is None else f"{1e3 * row['step_s']:,.0f} ms"
    quality = ", ".join(f"{value:.4f}" for value in row["quality"])
    return (f"{row['params']:,} ({row['share']:.1%})", memory, step, quality)


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
