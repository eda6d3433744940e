"""docs/parts.md from docs/results/parts.json and nothing else.

python bench/parts_page.py
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fusion_page import T_95, goodness, interval
from words import ms, signed, table

ROOT = Path(__file__).resolve().parents[1]
ABOUT = "Written by `python bench/parts.py` from [results/parts.json](results/parts.json). Do not edit."
ABOUT_TABLES = """The first row of a table is the control. *Gain* is the mean difference from it, seed by seed, and half
of its 95 % interval (Student's t over the seeds, wide as the seeds are few); above zero is better. Latency is the
median of one prediction of the exported bundle, one thread, as a ratio to the control's."""
TITLES = {"STEMS": "Stems", "CHANNELS": "Channel blocks", "CONNECTORS": "Connectors"}

Record = Mapping[str, Any]


def write_page(docs: Path) -> None:
    """Write the page."""
    record = json.loads((docs / "results" / "parts.json").read_text())
    (docs / "parts.md").write_text(page(record))


def page(record: Record) -> str:
    """The whole page as Markdown."""
    parts = ["# Stems, channel blocks and connectors, one at a time", ABOUT]
    if not record["trials"]:
        return "\n\n".join([*parts, "Nothing has been measured yet."]) + "\n"
    parts += [protocol(record), ABOUT_TABLES]
    for family, title in TITLES.items():
        own = [one for one in record["trials"].values() if one["family"] == family]
        parts += [f"## {title}"] if own else []
        parts += [part for one in own for part in (f"### {one['set']}: {' and '.join(one['kinds'])}", trial_table(one))]
    return "\n\n".join(parts) + "\n"


def protocol(record: Record) -> str:
    trials, options = record["trials"].values(), record["options"]
    machine = next(iter(trials))["environment"]
    commits = sorted({c for one in trials for member in one["members"].values() for c in member["commits"]})
    return (
        f"Late fusion, width {options['sizes']['dim']}, {options['sizes']['depth']} blocks per modality, alike but for"
        f" the part named, which the modalities in the title have; {options['seeds']} seed(s), about"
        f" {options['rows']:,} training rows per network. {machine['cpu']}, torch {machine['packages']['torch']},"
        f" onnxruntime {machine['packages']['onnxruntime']}; trained at commit"
        f" {', '.join(c[:12] + (' with changes' if '+' in c else '') for c in commits)}. So little training tells what"
        " learns quickly, not what wins in the end."
    )


def gain(one: Record, name: str) -> tuple[float, float | None]:
    """Mean difference from the control and half of its interval, None for a single seed; above zero is better."""
    control, own = (goodness(one["members"][n], one["metric"]) for n in (next(iter(one["members"])), name))
    gaps = [a - b for a, b in zip(own, control, strict=True)]
    half = None if len(gaps) < 2 else T_95[len(gaps)] * statistics.stdev(gaps) / math.sqrt(len(gaps))
    return statistics.mean(gaps), half


def told_gain(one: Record, name: str) -> str:
    mean, half = gain(one, name)
    return signed(mean) + ("" if half is None else f" ± {half:.3f}")


def trial_table(one: Record) -> str:
    control = next(iter(one["members"]))
    rows = []
    for name, member in one["members"].items():
        mean, _ = interval(member["quality"])
        against = "" if name == control else told_gain(one, name)
        params = f"{member['params'] / 1e3:.0f} k"
        rows.append((name, f"{mean:.3f}", against, params, ms(member["p50_s"]), f"{member['p50_ratio']:.2f}"))
    return table((one["metric"], "quality", "gain", "parameters", "p50 (ms)", "ratio"), rows)


def effect(record: Record, family: str, name: str) -> str | None:
    """For docs/mechanisms.md: what a member changes, trial by trial."""
    told = []
    for one in record["trials"].values():
        if one["family"] == family and name in one["members"]:
            where = f"{one['set']} ({' and '.join(one['kinds'])})"
            if name == next(iter(one["members"])):
                told.append(f"{where}: the control")
            else:
                ratio = one["members"][name]["p50_ratio"]
                told.append(f"{where}: {told_gain(one, name)} at {ratio:.2f} times the latency")
    return "; ".join(told) or None


if __name__ == "__main__":
    write_page(ROOT / "docs")
