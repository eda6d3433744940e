"""The page's words and tables: the verdict, the headline figures, every candidate, the environment."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from triptych.report import words
from triptych.report.markup import Html, el
from triptych.report.model import RunRecord
from triptych.report.points import floor_quality

Write = Callable[[float | None], str]

GLOSSARY = {
    "Floor": "memory of a bare Python process with numpy, measured the same way; “peak memory” comes on top of it.",
    "p50, p95": "median and 95th percentile of the time for one example in a fresh process; raw samples are kept.",
    "Ratio": "candidates are measured in turns (A B A B …); the figure is the ratio pair by pair with its interval.",
    "Interval": "95 % bootstrap interval over the test examples; two models whose intervals overlap may not differ.",
    "Loyalty": "share of test examples on which a candidate answers as the reference model does, right or wrong.",
    "Drop": "quality lost against the reference on the same examples, with a paired interval.",
    "FLOPs": "counted operations. A count, not a speed: compare the measured times.",
    "–": "not measured. It never means zero.",
}


def pair(run: RunRecord) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Reports of the reference and of the chosen model; the last line's figures where a report is absent."""
    line = run.headline
    reference = run.reports.get(run.reference) or {k: line.get(f"{k}_reference") for k in _KEYS}
    chosen = run.reports.get(run.chosen) or {k: line.get(k) for k in _KEYS}
    return reference, chosen


_KEYS = ("quality", "p50_s", "peak_bytes", "size_bytes")


def verdict(run: RunRecord) -> Html:
    """One sentence that a reader can take away: what was won, what was lost, what it cost in quality."""
    before, after = pair(run)
    changes = [(_gain(before.get(key), after.get(key)), better, worse) for key, better, worse in _SAID]
    won = [f"{words.number(gain)}× {better}" for gain, better, _ in changes if gain and gain >= 1.05]
    lost = [f"{words.number(1 / gain)}× {worse}" for gain, _, worse in changes if gain and gain <= 1 / 1.05]
    metric = words.METRICS.get(run.metric, run.metric)
    cost = f"{metric} {words.quality(before.get('quality'), run.metric)} → "
    cost += words.quality(after.get("quality"), run.metric)
    said = _list(won) or "No measured gain"
    but = f", but {_list(lost)}" if lost else ""
    return el("p", f"{said}{but}; {cost}.", class_="verdict")


_SAID = (
    ("size_bytes", "smaller", "larger"),
    ("p50_s", "faster", "slower"),
    ("peak_bytes", "lighter in memory", "heavier in memory"),
)


def _gain(before: float | None, after: float | None) -> float | None:
    return before / after if before and after else None


def _list(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}" if parts else ""


def cards(run: RunRecord) -> Html:
    """The four headline figures, before and after, each against its limit."""
    before, after = pair(run)
    budget, metric = run.budget, run.metric
    floor, got = floor_quality(run), after.get("quality")
    poorer = metric in words.LOWER_IS_BETTER
    kept = None if floor is None or got is None else got <= floor if poorer else got >= floor
    lost = None if got is None or before.get("quality") is None else got - before["quality"]
    quality = _card(
        metric.upper() if metric == "auroc" else words.METRICS.get(metric, metric).capitalize(),
        (words.quality(before.get("quality"), metric), words.quality(got, metric)),
        words.difference(lost, metric),
        interval=words.interval(after.get("quality_interval"), lambda v: words.quality(v, metric)),
        limit=(None if floor is None else ("at most " if poorer else "at least ") + words.quality(floor, metric), kept),
    )
    shown = [quality, *(_cost_card(before, after, budget, figure) for figure in _FIGURES)]
    return el("section", el("h2", "What it cost, what it bought"), el("div", *shown, class_="cards"), id="headline")


_FIGURES: tuple[tuple[str, str, Write], ...] = (
    ("p50_s", "Median latency", words.seconds),
    ("size_bytes", "Shipped size", words.size),
    ("peak_bytes", "Peak memory", words.size),
)


def _cost_card(
    before: Mapping[str, Any], after: Mapping[str, Any], budget: Mapping[str, Any], figure: tuple[str, str, Write]
) -> Html:
    key, title, write = figure
    most, got = budget.get(key), after.get(key)
    return _card(
        title,
        (write(before.get(key)), write(got)),
        words.times(before.get(key), got),
        interval=_ratio_interval(after) if key == "p50_s" else "",
        limit=(
            None if most is None else f"at most {write(most)}",
            None if most is None or got is None else got <= most,
        ),
    )


def _ratio_interval(after: Mapping[str, Any]) -> str:
    low, high = after.get("p50_ratio_interval") or (None, None)
    return f"{words.number(1 / high)}× … {words.number(1 / low)}× less, pair by pair" if low and high else ""


def _card(
    title: str, figures: tuple[str, str], change: str, *, interval: str, limit: tuple[str | None, bool | None]
) -> Html:
    """One figure before and after; `limit` is its text and whether it is kept (None: cannot be told)."""
    (before, after), (text, kept), mark = figures, limit, None
    if text is not None:
        state = "unknown" if kept is None else "met" if kept else "missed"
        word = {"met": "Within budget", "missed": "Over budget", "unknown": "Not measured"}[state]
        mark = el("p", el("b", word), f" {text}", class_=f"limit {state}")
    return el(
        "article",
        el("h3", title),
        el("p", after, class_="figure"),
        el("p", "was ", el("span", before), f" · {change}" if change else None, class_="was"),
        el("p", interval, class_="interval", title="95 % interval") if interval else None,
        mark,
        class_="card",
    )


def candidates(run: RunRecord) -> Html | None:
    """Every report as one table."""
    if not run.reports:
        return None
    metric = run.metric
    columns: tuple[tuple[str, str, Write], ...] = (
        ("quality", words.METRICS.get(metric, metric), lambda v: words.quality(v, metric)),
        ("loyalty", "loyalty", lambda v: words.quality(v, "accuracy")),
        ("p50_s", "p50", words.seconds),
        ("p95_s", "p95", words.seconds),
        ("peak_bytes", "peak memory", words.size),
        ("peak_bytes_total", "with floor", words.size),
        ("size_bytes", "size", words.size),
        ("params", "parameters", words.count),
        ("flops", "FLOPs", words.count),
        ("energy_j", "energy", words.joules),
    )
    head = el("tr", el("th", "candidate", scope="col"), *(el("th", title, scope="col") for _, title, _ in columns))
    rows = [
        el("tr", el("th", name, scope="row"), *(el("td", write(report.get(key))) for key, _, write in columns))
        for name, report in run.reports.items()
    ]
    glossary = el(
        "dl", *(el("div", el("dt", term), el("dd", text)) for term, text in GLOSSARY.items()), class_="glossary"
    )
    return el(
        "section",
        el("h2", "Every measurement"),
        el("div", el("table", el("thead", head), el("tbody", *rows), class_="figures"), class_="wide", tabindex="0"),
        el("h3", "How to read the figures"),
        glossary,
        id="measurements",
    )


def environment(run: RunRecord) -> Html | None:
    """Where the figures were taken."""
    facts = dict(run.environment or run.reports.get(run.chosen, {}).get("environment", {}))
    if run.headline.get("wall_s") is not None:
        facts["whole run"] = words.seconds(run.headline["wall_s"])
    if not facts:
        return None
    rows = [
        el("tr", el("th", _title(name), scope="row"), el("td", _fact(name, value))) for name, value in facts.items()
    ]
    return el("section", el("h2", "Environment"), el("table", el("tbody", *rows), class_="facts"), id="environment")


def _title(name: str) -> str:
    return name.removesuffix("_bytes").replace("_", " ")


def _fact(name: str, value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{_title(key)} {_fact(key, item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(str(item) for item in value)
    if name.endswith("_bytes") and isinstance(value, int | float):
        return words.size(value)
    return words.NOT_MEASURED if value is None else str(value)
