"""Examples as a reader meets them: the picture, the sound, the words, the answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from triptych.report import words
from triptych.report.markup import Html, el
from triptych.report.model import RunRecord


def examples(run: RunRecord) -> Html | None:
    """A card for every example, right or wrong."""
    if not run.examples:
        return None
    wrong = sum(example.get("right") is False for example in run.examples)
    choices = (("all", f"All {len(run.examples)}"), ("right", "Right"), ("wrong", f"Wrong ({wrong})"))
    buttons = [
        el("button", text, type="button", data_show=show, aria_pressed="true" if show == "all" else "false")
        for show, text in choices
    ]
    about = "Test examples with the shipped model's answers; inputs as the model receives them."
    return el(
        "section",
        el("h2", "Examples"),
        el("div", *buttons, class_="switch", role="group", aria_label="Which examples") if _judged(run) else None,
        el("div", *(_example(example) for example in run.examples), class_="examples"),
        el("p", about, class_="caption"),
        id="examples",
    )


def _judged(run: RunRecord) -> bool:
    return any(example.get("right") is not None for example in run.examples)


def _example(example: Mapping[str, Any]) -> Html:
    right = example.get("right")
    state = "open" if right is None else "right" if right else "wrong"
    mark = {"right": "✓ right", "wrong": "✗ wrong", "open": ""}[state]
    sure = example.get("confidence")
    rows = [el("dt", "predicted"), el("dd", _answer(example.get("predicted")))]
    if state != "right":
        rows += [el("dt", "true"), el("dd", _answer(example.get("true")))]
    if sure is not None:
        rows += [el("dt", "confidence"), el("dd", f"{100 * sure:.0f} %")]
    return el(
        "article",
        *(drawn(name, given) for name, given in example.get("inputs", {}).items()),
        el("dl", *rows),
        el("p", el("span", mark, class_="mark"), el("span", str(example.get("id", "")), class_="id")),
        class_=f"example {state}",
        data_state=state,
    )


def _answer(value: Any) -> str:
    return words.number(value) if isinstance(value, float) else words.NOT_MEASURED if value is None else str(value)


def drawn(name: str, given: Mapping[str, Any]) -> Html:
    """One input, as `report.inputs.drawable` prepared it."""
    body = el("p", "absent", class_="absent") if given.get("absent") else _DRAWN[given["kind"]](name, given)
    return el("div", el("span", name, class_="name"), body, class_=f"input {given['kind']}")


def _image(name: str, given: Mapping[str, Any]) -> Html:
    source = str(given.get("src", ""))
    if not source.startswith("data:image/"):
        return el("p", "no picture", class_="absent")
    return el("img", src=source, alt=name, width=given.get("width"), height=given.get("height"))


def _audio(name: str, given: Mapping[str, Any]) -> Html:
    wave = given.get("wave") or ()
    bars = "".join(f"M{i + 0.5:g} {20 - 18 * v:.1f}V{20 + 18 * v:.1f}" for i, v in enumerate(wave))
    picture = el(
        "svg",
        el("path", d=bars, class_="wave"),
        viewbox=f"0 0 {max(len(wave), 1)} 40",
        preserveAspectRatio="none",
        role="img",
        aria_label=f"{name}: {words.seconds(given.get('seconds'))} of sound",
    )
    source = str(given.get("src", ""))
    player = el("audio", controls=True, preload="none", src=source) if source.startswith("data:audio/") else None
    return el("div", picture, player)


def _text(_: str, given: Mapping[str, Any]) -> Html:
    return el("blockquote", str(given.get("text", "")))


def _series(name: str, given: Mapping[str, Any]) -> Html:
    lines = [el("path", d=_spark(values), class_=f"line line-{i}") for i, values in enumerate(given["lines"].values())]
    more = f" and {given['hidden']} more" if given.get("hidden") else ""
    picture = el(
        "svg",
        *lines,
        viewbox="0 0 100 40",
        preserveAspectRatio="none",
        role="img",
        aria_label=f"{name}: {', '.join(given['lines'])}{more}",
    )
    return el("div", picture, el("small", f"{', '.join(given['lines'])}{more}"))


def _spark(values: Sequence[float | None]) -> str:
    """A path over 100 × 40, broken where a value is missing; a value between two gaps is a dot."""
    known = [v for v in values if v is not None]
    if not known:
        return ""
    low, high = min(known), max(known)
    spread = (high - low) or 1.0
    parts, started = [], False
    for i, value in enumerate(values):
        if value is None:
            started = False
            continue
        place = f"{100 * i / max(len(values) - 1, 1):.1f} {37 - 34 * (value - low) / spread:.1f}"
        parts.append(f"L{place}" if started else f"M{place}L{place}")
        started = True
    return "".join(parts)


def _table(_: str, given: Mapping[str, Any]) -> Html:
    rows = [el("tr", el("th", key, scope="row"), el("td", _answer(value))) for key, value in given["fields"].items()]
    return el("table", el("tbody", *rows))


_DRAWN = {
    "image": _image,
    "audio": _audio,
    "text": _text,
    "series": _series,
    "table": _table,
    "video": _image,
    "points": _image,
    "codes": _text,
}
