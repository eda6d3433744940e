"""docs/coded.md from docs/results/coded.json and nothing else.

python bench/coded_page.py
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fusion_page import interval
from words import plus_minus, table

ROOT = Path(__file__).resolve().parents[1]
CONTROL = "audio"
ABOUT = "Written by `python bench/coded.py` from [results/coded.json](results/coded.json). Do not edit."
TOLD = """A token's log-mel frames become a few whole numbers: residual codebooks, learnt on the training rows'
frames, give one number per level. *Left* is the share of the test frames' variance that the words do not give back;
*gain* the mean difference from the control, seed by seed, ± half of its 95 % interval (Student's t). Working the codes
out is not part of the networks here."""

Record = Mapping[str, Any]


def page(record: Record) -> str:
    """The whole page as Markdown."""
    parts = ["# Sounds as codes", ABOUT, TOLD]
    options = record["options"]
    for name, one in record["sets"].items():
        commits = sorted({commit for member in one["members"].values() for commit in member["commits"]})
        told = (
            f"{one['tokens']} tokens of {one['width']} numbers each; codebooks of {options['entries']} words;"
            f" about {options['rows']:,} training rows per network, {options['seeds']} seed(s); commit"
            f" {', '.join(c[:12] + (' with changes' if '+' in c else '') for c in commits)}."
        )
        head = ("read", "bits per token", "left", one["metric"], "gain")
        parts += [f"## {name}", told, table(head, rows(one, options["entries"]))]
    return "\n\n".join(parts) + "\n"


def rows(one: Record, entries: int) -> list[tuple[str, ...]]:
    control = one["members"][CONTROL]["quality"]
    found = [("frames (control)", f"{32 * one['width']:,}", "0.0 %", plus_minus(*interval(control)), "")]
    for levels, left in one["left"].items():
        own = one["members"][f"codes-{levels}"]["quality"]
        gain = interval([a - b for a, b in zip(own, control, strict=True)])
        bits = int(levels) * math.log2(entries)
        found.append(
            (
                f"{levels} code{'s' * (levels != '1')}",
                f"{bits:,.0f}",
                f"{100 * left:.1f} %",
                plus_minus(*interval(own)),
                plus_minus(*gain, sign="+"),
            )
        )
    return found


def write_page(docs: Path) -> None:
    """Write the page."""
    (docs / "coded.md").write_text(page(json.loads((docs / "results" / "coded.json").read_text())))


if __name__ == "__main__":
    write_page(ROOT / "docs")
    print(json.dumps({"page": "docs/coded.md"}))
