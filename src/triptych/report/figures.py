"""The page's figures: the scatter, the steps, what each modality costs and is worth, the answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from triptych.report import words
from triptych.report.markup import Html, el
from triptych.report.model import RunRecord
from triptych.report.points import AXES, ledger, points

MAX_DOTS = 1500


def scatter(run: RunRecord) -> Html | None:
    """Quality against latency, size and memory; drawn by the page's script from the data block."""
    if not points(run):
        return None
    buttons = [
        el("button", name, type="button", data_axis=key, aria_pressed="true" if i == 0 else "false")
        for i, (key, name, _, _) in enumerate(AXES)
    ]
    about = (
        "Each mark is one measured model; whiskers are 95 % intervals of quality. Up and to the left is better. "
        "Dashed lines are the budget. The thin path follows the recipe, step by step; crosses were tried and rejected."
    )
    return el(
        "section",
        el("h2", "Quality against cost"),
        el("div", *buttons, class_="switch", role="group", aria_label="Horizontal axis"),
        el(
            "figure",
            el("div", el("noscript", "The table of measurements below holds the same figures."), id="scatter"),
            el("figcaption", about),
        ),
        id="front",
    )


def steps(run: RunRecord) -> Html | None:
    """The recipe in order, with what each step changed, then what was rejected and why."""
    if not run.steps and not run.rejected:
        return None
    parts: list[Html] = []
    if run.steps:
        most = {
            key: max((s.get(key) or 0 for s in run.steps), default=0) for key in ("p50_s", "size_bytes", "peak_bytes")
        }
        before = (None, *run.steps[:-1])
        rows = [_step(run, i, step, last, most) for i, (step, last) in enumerate(zip(run.steps, before, strict=True))]
        head = ("step", words.METRICS.get(run.metric, run.metric), "latency p50", "size", "peak memory")
        parts.append(_wide(el("tr", *(el("th", title, scope="col") for title in head)), rows, "steps"))
        parts.append(
            el(
                "p",
                "Each step is measured with the ones above it in place. Percentages are against the step before.",
                class_="caption",
            )
        )
    if run.rejected:
        parts += [
            el("h3", "Tried and rejected"),
            el("ul", *(_rejected(run, item) for item in run.rejected), class_="rejected"),
        ]
    return el("section", el("h2", "The recipe, step by step"), *parts, id="steps")


def _wide(head: Html, rows: Sequence[Html], kind: str) -> Html:
    return el("div", el("table", el("thead", head), el("tbody", *rows), class_=kind), class_="wide", tabindex="0")


def _step(
    run: RunRecord, i: int, step: Mapping[str, Any], last: Mapping[str, Any] | None, most: Mapping[str, float]
) -> Html:
    gained = (
        None
        if last is None or None in (step.get("quality"), last.get("quality"))
        else step["quality"] - last["quality"]
    )
    interval = words.interval(step.get("quality_interval"), lambda v: words.quality(v, run.metric))
    return el(
        "tr",
        el(
            "th",
            el("span", str(i), class_="ordinal"),
            el("b", str(step.get("name", ""))),
            el("small", settings(step.get("settings"))),
            el("small", str(step["note"])) if step.get("note") else None,
            scope="row",
        ),
        el(
            "td",
            el("span", words.quality(step.get("quality"), run.metric), title=interval or None),
            el("small", words.difference(gained, run.metric)) if gained is not None else None,
        ),
        *(
            el(
                "td",
                el("span", write(step.get(key))),
                el("small", _against(last, step, key)),
                _bar(step.get(key), most[key]),
            )
            for key, write in (("p50_s", words.seconds), ("size_bytes", words.size), ("peak_bytes", words.size))
        ),
    )


def _against(last: Mapping[str, Any] | None, step: Mapping[str, Any], key: str) -> str:
    return "" if last is None else words.change(last.get(key), step.get(key))


def _bar(value: float | None, most: float, kind: str = "") -> Html | None:
    if value is None or not most:
        return None
    width = max(0.0, min(100.0, 100 * abs(value) / most))
    return el("span", el("i", style=f"width:{width:.1f}%"), class_=f"bar {kind}".strip(), aria_hidden="true")


def settings(value: Any) -> str:
    """A step's knobs in one line."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {words.number(v) if isinstance(v, float) else v}" for key, v in value.items())
    return "" if value is None else str(value)


def _rejected(run: RunRecord, item: Mapping[str, Any]) -> Html:
    figures = [
        words.quality(item.get("quality"), run.metric) if item.get("quality") is not None else "",
        *(write(item.get(key)) if item.get(key) is not None else "" for key, _, _, write in AXES),
    ]
    return el(
        "li",
        el("b", str(item.get("name", ""))),
        el("small", settings(item.get("settings"))),
        el("span", str(item.get("reason", "no reason recorded")), class_="reason"),
        el("small", " · ".join(figure for figure in figures if figure)),
    )


def modalities(run: RunRecord) -> Html | None:
    """What each modality costs in time and what quality is lost without it."""
    found = ledger(run)
    if not found:
        return None
    extra = [column for column in _EXTRA if any(m.get(column[0]) is not None for m in found.values())]
    time = sum(m.get("p50_s") or 0 for m in found.values())
    worth = max(abs(m.get("worth") or 0) for m in found.values())
    rows = [_modality(run, name, figures, (time, worth), extra) for name, figures in found.items()]
    head = (
        "modality",
        "cost: its share of the encoders’ time",
        "worth: quality lost without it",
        *(e[1] for e in extra),
    )
    about = (
        "Cost is the time of the modality's own encoder. Worth is the quality lost when that input is missing; "
        "a modality with a long cost bar and a short worth bar is a candidate for removal."
    )
    return el(
        "section",
        el("h2", "What each modality costs and is worth"),
        _wide(el("tr", *(el("th", title, scope="col") for title in head)), rows, "ledger"),
        el("p", about, class_="caption"),
        id="modalities",
    )


_EXTRA: tuple[tuple[str, str, Callable[[float | None, str], str]], ...] = (
    ("alone", "alone", words.quality),
    ("params", "parameters", lambda value, _: words.count(value)),
    ("flops", "FLOPs", lambda value, _: words.count(value)),
    ("kept", "tokens read", lambda value, _: _percent(value)),
    ("skipped", "rows without it", lambda value, _: _percent(value)),
)


def _modality(
    run: RunRecord, name: str, figures: Mapping[str, Any], most: tuple[float, float], extra: Sequence[Any]
) -> Html:
    cost, value = figures.get("p50_s"), figures.get("worth")
    share = f" · {100 * cost / most[0]:.0f}{words.NBSP}%" if cost is not None and most[0] else ""
    interval = words.interval(figures.get("worth_interval"), lambda v: words.difference(v, run.metric))
    return el(
        "tr",
        el("th", el("b", name), el("small", str(figures.get("kind", ""))), scope="row"),
        el("td", el("span", words.seconds(cost) + share), _bar(cost, most[0], "cost")),
        el(
            "td",
            el("span", _worth(value, run.metric)),
            el("small", interval),
            _bar(value, most[1], "worth" if (value or 0) >= 0 else "harm"),
        ),
        *(el("td", write(figures.get(key), run.metric)) for key, _, write in extra),
    )


def _percent(value: float | None) -> str:
    return words.NOT_MEASURED if value is None else f"{100 * value:.0f}{words.NBSP}%"


def _worth(value: float | None, metric: str) -> str:
    if value is None:
        return words.NOT_MEASURED
    return (
        words.difference(value, metric).removeprefix("+")
        if value >= 0
        else f"{words.difference(value, metric)} (harms)"
    )


def answers(run: RunRecord) -> Html | None:
    """Confusion matrix, predicted against true values, or how far a search has to look."""
    if run.confusion.get("directions"):
        return _searches(run.confusion["directions"], run.confusion["rows"])
    if run.confusion.get("counts"):
        return _confusion(run.confusion["classes"], run.confusion["counts"])
    if run.confusion.get("true"):
        return _predicted(run.confusion["true"], run.confusion["predicted"])
    return None


def _confusion(classes: Sequence[str], counts: Sequence[Sequence[int]]) -> Html:
    head = el("tr", el("td"), *(el("th", el("span", name), scope="col") for name in classes))
    rows = []
    for i, (name, row) in enumerate(zip(classes, counts, strict=True)):
        total = sum(row) or 1
        cells = [
            el(
                "td",
                str(n) if n else "",
                class_="hit" if i == j else "miss",
                style=f"--share:{100 * n / total:.0f}%",
                title=f"{n} of {total} “{name}” answered “{classes[j]}”",
            )
            for j, n in enumerate(row)
        ]
        rows.append(el("tr", el("th", name, scope="row"), *cells))
    dense = " dense" if len(classes) > 12 else ""
    table = el("table", el("thead", head), el("tbody", *rows), class_=f"confusion{dense}")
    about = (
        "Rows are true classes, columns the shipped model's answers on the test split; shade is the share of the row."
    )
    return el(
        "section",
        el("h2", "Where it errs"),
        el("div", table, class_="wide", tabindex="0"),
        el("p", about, class_="caption"),
        id="answers",
    )


def _predicted(true: Sequence[float | None], predicted: Sequence[float | None]) -> Html:
    both = [(t, p) for t, p in zip(true, predicted, strict=True) if t is not None and p is not None]
    low = min((min(pair) for pair in both), default=0.0)
    high = max((max(pair) for pair in both), default=1.0)
    spread = (high - low) or 1.0

    def place(value: float) -> float:
        return round(300 * (value - low) / spread, 1)

    stride = max(1, -(-len(both) // MAX_DOTS))
    dots = [el("circle", cx=40 + place(t), cy=310 - place(p), r=3) for t, p in both[::stride]]
    picture = el(
        "svg",
        el("path", d="M40 310 340 10", class_="diagonal"),
        el("path", d="M40 10V310H340", class_="axis"),
        *dots,
        el("text", words.number(low), x=40, y=326),
        el("text", words.number(high), x=340, y=326, text_anchor="end"),
        el("text", words.number(low), x=35, y=310, text_anchor="end"),
        el("text", words.number(high), x=35, y=18, text_anchor="end"),
        el("text", "true", x=190, y=338, text_anchor="middle"),
        el("text", "predicted", x=14, y=160, text_anchor="middle", transform="rotate(-90 14 160)"),
        viewbox="0 0 350 344",
        class_="predicted",
        role="img",
        aria_label=f"Predicted against true values of {len(both)} test examples",
    )
    about = "One dot is one test example; on the line, the answer is exact."
    return el("section", el("h2", "Predicted and true"), el("figure", picture, el("figcaption", about)), id="answers")


def _searches(directions: Sequence[Mapping[str, Any]], rows: int) -> Html:
    titles = ("search", "found first", "among the first 10", "median rank")
    lines = [
        el(
            "tr",
            el("th", f"{one['query']} → {one['answer']}", scope="row"),
            el("td", words.quality(one["recall_at_1"], "recall_at_1")),
            el("td", words.quality(one["recall_at_10"], "recall_at_10")),
            el("td", words.number(one["median_rank"])),
        )
        for one in directions
    ]
    head = el("tr", *(el("th", title, scope="col") for title in titles))
    about = (
        f"Every test row asks, among all {rows:,}; equal values are right answers to each other's rows, and a wrong "
        "answer exactly as similar as the right one counts as found before it."
    )
    return el(
        "section",
        el("h2", "What a search finds"),
        el("div", el("table", el("thead", head), el("tbody", *lines), class_="figures"), class_="wide", tabindex="0"),
        el("p", about, class_="caption"),
        id="answers",
    )
