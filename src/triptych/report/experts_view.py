"""What the experts of the shipped network do."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from triptych.report import words
from triptych.report.markup import Html, el
from triptych.report.model import RunRecord

_LAYER = re.compile(r"(?:encoders\.)?(?P<place>\w+)(?:\..*)?\.layers\.(?P<number>\d+)\.")
_COLLAPSED = 0.5


def experts(run: RunRecord) -> Html | None:
    """Load of every expert, how sure the routers are and whether one has collapsed; None without experts."""
    found = run.reports.get(run.chosen, {}).get("routers")
    if not found:
        return None
    titles = ("layer", "share of the work by expert", "undecided", "collapse", "pairs per token")
    head = el("tr", *(el("th", title, scope="col") for title in titles))
    table = el("table", el("thead", head), el("tbody", *(_row(n, one) for n, one in found.items())), class_="ledger")
    about = (
        "A bar for every expert; the line is an even share. Undecided: the entropy of a token's scores, 0 % where the "
        "router is sure. Collapse: 0 % where all experts work alike, 100 % where one does everything."
    )
    return el(
        "section",
        el("h2", "What the experts do"),
        el("div", table, class_="wide", tabindex="0"),
        el("p", about, class_="caption"),
        id="experts",
    )


def layer_name(part: str) -> str:
    """A layer in words: 'encoders.image.blocks.layers.0.channel' is 'image, block 1'."""
    found = _LAYER.match(f"{part}.")
    return f"{found['place']}, block {int(found['number']) + 1}" if found else part


def _row(part: str, one: Mapping[str, Any]) -> Html:
    collapsed = one["collapse"] > _COLLAPSED
    return el(
        "tr",
        el("th", el("b", layer_name(part)), el("small", f"{len(one['load'])} experts"), scope="row"),
        el("td", _bars(one["load"])),
        el("td", words.quality(one["entropy"], "accuracy")),
        el("td", words.quality(one["collapse"], "accuracy"), el("small", "collapsed") if collapsed else None),
        el("td", words.number(one["pairs"])),
    )


def _bars(load: list[float]) -> Html:
    """The load as bars of 40 units' height for twice an even share and more."""
    width, even = 10, 20.0
    heights = [min(40.0, even * share * len(load)) for share in load]
    bars = [
        el("rect", el("title", f"expert {i}: {words.quality(share, 'accuracy')}"), x=width * i + 1, y=f"{40 - h:.1f}",
           width=width - 2, height=f"{h:.1f}")
        for i, (share, h) in enumerate(zip(load, heights, strict=True))
    ]  # fmt: skip
    total = width * len(load)
    label = ", ".join(words.quality(share, "accuracy") for share in load)
    return el(
        "svg",
        *bars,
        el("path", d=f"M0 {even:g}H{total}", class_="even"),
        viewbox=f"0 0 {total} 40",
        class_="load",
        role="img",
        aria_label=f"Share of the work by expert: {label}",
        style=f"width:{min(total, 320)}px",
    )
