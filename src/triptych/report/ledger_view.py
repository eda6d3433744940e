"""The page's ledger: what each modality costs, what it earns, and the advice that follows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from triptych.report import words
from triptych.report.figures import bar, wide
from triptych.report.markup import Html, el
from triptych.report.model import RunRecord
from triptych.report.points import ledger, sentences

ABOUT = (
    "Cost is the time of the modality's own encoder. Earned is its Shapley value: the quality it adds, averaged over "
    "the orders in which the modalities can join; all of them add up to the quality above the best answer that looks "
    "at nothing. Lost is what the quality falls by when that input alone is missing. Intervals hold 95 % of the "
    "bootstrap over test rows."
)
COLUMNS: tuple[tuple[str, str, Callable[[Any, str], str]], ...] = (
    ("flops", "FLOPs", lambda value, _: words.count(value)),
    ("size_bytes", "weights", lambda value, _: words.size(value)),
    ("params", "parameters", lambda value, _: words.count(value)),
    ("energy_share", "energy, estimated", lambda value, _: percent(value)),
    ("energy_j", "joules, estimated", lambda value, _: words.joules(value)),
    ("alone", "quality alone", words.quality),
    ("kept", "tokens read", lambda value, _: percent(value)),
    ("skipped", "rows without it", lambda value, _: percent(value)),
)


def modalities(run: RunRecord) -> Html | None:
    """One row per modality and the advice; nothing where no modality was measured."""
    found = ledger(run)
    if not found:
        return None
    extra = [column for column in COLUMNS if any(m.get(column[0]) is not None for m in found.values())]
    time = sum(m.get("p50_s") or 0 for m in found.values())
    most = {key: max(abs(m.get(key) or 0) for m in found.values()) for key in ("shapley", "worth")}
    rows = [_row(run, name, figures, time=time, most=most, extra=extra) for name, figures in found.items()]
    head = ("modality", "cost", *(title for _, title, _ in extra), "earned", "lost without it")
    sources = dict.fromkeys(m["energy_source"] for m in found.values() if m.get("energy_source"))
    told = sentences(run)
    return el(
        "section",
        el("h2", "What each modality costs and is worth"),
        wide(el("tr", *(el("th", title, scope="col") for title in head)), rows, "ledger"),
        el("ul", *(el("li", one) for one in told), class_="advice") if told else None,
        el("p", ABOUT, *(f" Energy: {source}." for source in sources), class_="caption"),
        id="modalities",
    )


def percent(share: float | None) -> str:
    """A share in whole percent."""
    return words.NOT_MEASURED if share is None else f"{100 * share:.0f}{words.NBSP}%"


def _row(
    run: RunRecord,
    name: str,
    figures: Mapping[str, Any],
    *,
    time: float,
    most: Mapping[str, float],
    extra: Sequence[tuple[str, str, Callable[[Any, str], str]]],
) -> Html:
    cost, share = figures.get("p50_s"), figures.get("share")
    told = f"{percent(share)} of the {figures.get('share_of')}" if share is not None else ""
    return el(
        "tr",
        el("th", el("b", name), el("small", str(figures.get("kind", ""))), scope="row"),
        el("td", el("span", words.seconds(cost)), el("small", told), bar(cost, time, "cost")),
        *(el("td", write(figures.get(key), run.metric)) for key, _, write in extra),
        *(_gain(run, figures, key, most[key]) for key in ("shapley", "worth")),
    )


def _gain(run: RunRecord, figures: Mapping[str, Any], key: str, most: float) -> Html:
    value = figures.get(key)
    interval = words.interval(figures.get(f"{key}_interval"), lambda v: words.difference(v, run.metric))
    harms = value is not None and value < 0
    told = words.difference(value, run.metric)
    return el(
        "td",
        el("span", f"{told} (harms)" if harms else told.removeprefix("+")),
        el("small", interval),
        bar(value, most, "harm" if harms else "worth"),
    )
