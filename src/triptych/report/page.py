"""The report: one HTML page that needs no network and no other file."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from triptych.report import experts_view, figures, headline, inputs_view, ledger_view
from triptych.report.markup import Html, el
from triptych.report.model import RunRecord
from triptych.report.points import scatter_data

LOGO = Html(
    '<svg class="logo" viewBox="0 0 34 28" aria-hidden="true"><path d="M1 5 9 3v22l-8-2z"/><path d="M11 2h12v24H11z"/>'
    '<path d="M25 3l8 2v18l-8 2z"/></svg>'
)


def page(run: RunRecord) -> str:
    """The whole page as text."""
    style, script = _asset("page.css"), _asset("page.js")
    policy = (
        "default-src 'none'; style-src 'unsafe-inline'; img-src data:; media-src data:; "
        f"script-src 'sha256-{_sha256(script)}'; base-uri 'none'; form-action 'none'"
    )
    head = el(
        "head",
        el("meta", charset="utf-8"),
        el("meta", http_equiv="Content-Security-Policy", content=policy),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("meta", name="color-scheme", content="light dark"),
        el("meta", name="generator", content="triptych"),
        el("link", rel="icon", href="data:,"),
        el("title", f"{run.dataset} — Triptych report"),
        el("style", Html(style)),
    )
    body = el(
        "body",
        el("a", "Skip to the figures", class_="skip", href="#main"),
        _header(run),
        el("main", *_sections(run), id="main"),
        el("footer", el("p", "Written by Triptych. This page loads nothing from the network.")),
        _data("scatter-data", scatter_data(run)),
        el("script", Html(script)),
    )
    return f"<!doctype html>\n{el('html', head, body, lang='en')}\n"


def _header(run: RunRecord) -> Html:
    kinds = ", ".join(_named(m) for m in run.schema.get("modalities", ()))
    return el(
        "header",
        el("div", LOGO, el("span", "Triptych"), class_="brand"),
        el("h1", run.dataset),
        el("p", f"{_goal(run)} {kinds}.", class_="lede"),
        headline.verdict(run),
    )


def _goal(run: RunRecord) -> str:
    if run.task == "retrieval":
        return "Retrieval, in both directions, between"
    return f"{run.task.capitalize()} of “{run.schema.get('target', 'target')}” from"


def _named(modality: Mapping[str, Any]) -> str:
    name, kind = str(modality.get("name")), str(modality.get("kind"))
    return name if name == kind else f"{name} ({kind})"


def _sections(run: RunRecord) -> list[Html]:
    built = [
        headline.cards(run),
        figures.scatter(run),
        figures.steps(run),
        ledger_view.modalities(run),
        experts_view.experts(run),
        figures.answers(run),
        inputs_view.examples(run),
        headline.candidates(run),
        headline.environment(run),
    ]
    return [section for section in built if section]


def _asset(name: str) -> str:
    return files("triptych.report").joinpath(name).read_text(encoding="utf-8").strip()


def _sha256(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _data(name: str, value: object) -> Html:
    text = json.dumps(value, ensure_ascii=True, allow_nan=False)
    safe = text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    return Html(f'<script type="application/json" id="{name}">{safe}</script>')
