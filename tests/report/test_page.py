"""The page as text: whole, escaped, self-contained, honest about what was not measured."""

import dataclasses
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.report.conftest import HOSTILE, sample_run
from triptych.errors import DataError
from triptych.report import RunRecord, drawable, write_report
from triptych.report import figures as figures_module
from triptych.report.headline import verdict
from triptych.report.inputs import envelope
from triptych.report.inputs_view import _spark
from triptych.report.markup import Html, el
from triptych.report.page import page
from triptych.report.points import floor_quality, points
from triptych.schema import Modality


class Tags(HTMLParser):
    """Collects every start tag, and checks that tags nest."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in {"meta", "link", "img", "input", "br", "hr"} and not self.get_starttag_text().endswith("/>"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if self.open and self.open[-1] == tag:
            self.open.pop()


def tags(text: str) -> Tags:
    parser = Tags()
    parser.feed(text)
    parser.close()
    return parser


def whole(**changes: Any) -> str:
    return page(RunRecord.from_dict({**sample_run(), **changes}))


def test_a_class_called_script_stays_text() -> None:
    text = whole()
    assert HOSTILE not in text
    scripts = [attributes for tag, attributes in tags(text).tags if tag == "script"]
    assert [a.get("type") for a in scripts] == ["application/json", None]
    assert "&lt;script&gt;" in text


def test_hostile_examples_cannot_name_addresses_or_handlers() -> None:
    evil = {
        "kind": "image",
        "src": "https://example.org/x.png",
        "width": '1" onerror="alert(1)',
        "height": 1,
    }
    sound = {"kind": "audio", "wave": [0.5], "seconds": 1.0, "src": "javascript:alert(1)"}
    text = whole(
        examples=[{"id": "x", "true": "a", "predicted": "b", "right": False, "inputs": {"i": evil, "s": sound}}]
    )
    assert "example.org" not in text
    assert "javascript:" not in text
    assert not any(name.startswith("on") for _, attributes in tags(text).tags for name in attributes)


def test_the_page_names_nothing_outside_itself() -> None:
    parsed = tags(whole())
    for _, attributes in parsed.tags:
        for name in ("src", "href", "action", "poster"):
            assert re.match(r"data:|#|$", attributes.get(name) or ""), attributes
    assert not parsed.open
    policy = next(a["content"] for t, a in parsed.tags if t == "meta" and a.get("http-equiv"))
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    assert "unsafe-inline'" not in policy.split("script-src")[1]


def test_every_section_is_there_and_disappears_without_figures() -> None:
    sections = [a["id"] for t, a in tags(whole()).tags if t == "section"]
    assert sections == [
        "headline",
        "front",
        "steps",
        "modalities",
        "answers",
        "examples",
        "measurements",
        "environment",
    ]
    bare = RunRecord("d", {"task": "classification", "metric": "accuracy"})
    assert [a["id"] for t, a in tags(page(bare)).tags if t == "section"] == ["headline"]


def test_what_was_not_measured_is_a_dash_and_never_zero() -> None:
    run = sample_run()
    run["reports"]["lean"]["peak_bytes"] = None
    text = page(RunRecord.from_dict(run))
    card = text.split("Peak memory</h3>")[1].split("</article>")[0]
    assert '<p class="figure">–</p>' in card
    assert "Not measured" in card


def test_the_verdict_says_what_got_worse() -> None:
    run = sample_run()
    run["reports"]["lean"] |= {"p50_s": 0.0242, "size_bytes": 5.1e6, "peak_bytes": 49e6}
    said = verdict(RunRecord.from_dict(run)).replace("\N{NO-BREAK SPACE}", " ")
    assert "2× smaller, but 2× slower; accuracy 88.1 % → 87.4 %." in said


def test_a_missed_budget_is_shown_as_missed() -> None:
    run = sample_run()
    run["budget"] = {"p50_s": 0.001}
    assert page(RunRecord.from_dict(run)).count("Over budget") == 1


@pytest.mark.parametrize(
    ("metric", "budget", "expected"),
    [
        ("accuracy", {"max_drop": 0.02}, 0.861),
        ("accuracy", {"max_drop": 0.02, "min_quality": 0.87}, 0.87),
        ("mae", {"max_drop": 0.02}, 0.901),
        ("mae", {"max_drop": 0.02, "min_quality": 0.9}, 0.9),
        ("accuracy", {}, None),
    ],
)
def test_the_floor_of_quality_is_the_stricter_limit(metric: str, budget: dict[str, float], expected: float) -> None:
    run = RunRecord("d", {"metric": metric}, budget=budget, reports={"reference": {"quality": 0.881}})
    assert floor_quality(run) == pytest.approx(expected)


def test_points_without_quality_are_left_out() -> None:
    roles = [point["role"] for point in points(RunRecord.from_dict(sample_run()))]
    assert roles == ["reference", "chosen", "other", "other", *["step"] * 5, "rejected"]


def test_a_record_survives_its_file(tmp_path: Path) -> None:
    record = RunRecord.from_dict(sample_run())
    record.save(tmp_path)
    assert RunRecord.load(tmp_path).to_dict() == record.to_dict()


def test_a_record_holds_plain_json_only() -> None:
    record = RunRecord("d", {}, headline={"a": float("nan"), "b": np.float32(0.5), "c": np.arange(2), "d": (1, None)})
    assert json.loads(json.dumps(record.to_dict(), allow_nan=False))["headline"] == {
        "a": None,
        "b": 0.5,
        "c": [0, 1],
        "d": [1, None],
    }


@pytest.mark.parametrize("content", ["{", "[]", '{"dataset": "x"}', '{"dataset": "x", "schema": {}, "bogus": 1}'])
def test_a_damaged_record_is_a_data_error(tmp_path: Path, content: str) -> None:
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(DataError):
        RunRecord.load(tmp_path)


def test_writing_leaves_page_record_and_plots(run: dict[str, Any], tmp_path: Path) -> None:
    path = write_report(run, tmp_path)
    assert path.read_text().startswith("<!doctype html>")
    found = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()}
    assert found == {"report.html", "run.json", "plots/front.png", "plots/steps.png", "plots/modalities.png"}


def test_the_ledger_shows_cost_worth_and_advice_and_a_dash_for_what_is_unknown() -> None:
    run = sample_run()
    twin = {"worth": 0.001, "worth_interval": [-0.01, 0.02], "shapley": 0.12, "shapley_interval": [0.1, 0.14]}
    run["modalities"] = {}
    run["reports"]["lean"]["parts"] = {
        "image": {"p50_s": 0.002, "flops": 2e6, "size_bytes": 300_000, **twin},
        "audio": {"p50_s": 0.001, "worth": -0.02, "worth_interval": [-0.03, -0.01]},
        "text": {"p50_s": 0.0005},
        "decide": {"p50_s": 0.0005},
    }
    section = page(RunRecord.from_dict(run)).split('id="modalities"')[1].split("</section>")[0]
    told = section.replace("\N{NO-BREAK SPACE}", " ")
    for text in ("50 % of the time", "12.0 points", "−2.0 points (harms)", "300 kB", "image costs 50 % of the time"):
        assert text in told
    row = told.split("<b>text</b>")[1].split("</tr>")[0]
    assert row.count("–") == 4  # FLOPs, weights, earned and lost
    assert 'class="advice"' in section


def test_regression_draws_predicted_against_true() -> None:
    schema = {"task": "regression", "metric": "mae", "target": "mood"}
    text = whole(schema=schema, confusion={"true": [0.0, 1.0, None], "predicted": [0.0, 1.0, 2.0]})
    section = text.split('id="answers"')[1].split("</section>")[0]
    # hand-computed: the lowest value sits at the origin (40, 310), the highest at the top right (340, 10)
    assert 'cx="40.0" cy="310.0"' in section
    assert 'cx="340.0" cy="10.0"' in section
    assert section.count("<circle") == 2


def test_markup_escapes_what_is_not_markup() -> None:
    assert el("p", "<b>", Html("<i></i>"), None, title='"') == '<p title="&quot;">&lt;b&gt;<i></i></p>'
    assert el("button", "x", hidden=True, disabled=False, data_show="a") == '<button hidden data-show="a">x</button>'


def test_an_envelope_is_the_loudest_of_each_span() -> None:
    assert envelope(np.array([0.1, -0.4, 0.2, 0.1], np.float32), points=2) == [1.0, 0.5]
    assert envelope(np.zeros(0, np.float32)) == []


def test_inputs_of_every_kind_can_be_drawn() -> None:
    image = drawable(Modality("i", "image", height=8, width=8, channels=1), np.zeros((300, 200, 1), np.uint8))
    assert image["src"].startswith("data:image/png;base64,")
    assert max(image["width"], image["height"]) == 160
    audio = Modality("a", "audio", sample_rate=100)
    clip = drawable(audio, np.r_[np.ones(50), np.full(50, np.nan)].astype(np.float32))
    assert clip["seconds"] == 0.5
    assert "src" in clip
    assert "src" not in drawable(audio, np.ones(300_000, np.float32))
    series = drawable(Modality("s", "series", channels=8), np.full((500, 8), np.nan, np.float32))
    assert len(series["lines"]) == 6
    assert series["hidden"] == 2
    assert drawable(Modality("t", "text"), "x" * 900)["text"].endswith("…")
    assert drawable(Modality("v", "table", fields=("a", "b")), [1.5, float("nan")])["fields"] == {"a": 1.5, "b": None}
    assert drawable(Modality("t", "text"), None) == {"kind": "text", "absent": True}


def test_a_series_shows_its_fullest_channels() -> None:
    frames = np.full((4, 8), np.nan, np.float32)
    frames[:, 7], frames[:2, 5] = 1, 2
    lines = drawable(Modality("s", "series", channels=8), frames)["lines"]
    assert list(lines) == ["0", "1", "2", "3", "5", "7"]
    assert lines["5"] == [2, 2, None, None]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 1.0, None, 0.0], "M0.0 37.0L0.0 37.0L33.3 3.0M100.0 37.0L100.0 37.0"),
        ([None, 5.0], "M100.0 37.0L100.0 37.0"),
        ([None], ""),
    ],
)
def test_a_sparkline_breaks_at_gaps_and_dots_what_stands_alone(values: list[float | None], expected: str) -> None:
    assert _spark(values) == expected


def test_records_name_only_fields_that_exist() -> None:
    assert sample_run().keys() == {f.name for f in dataclasses.fields(RunRecord)}


def luminance(color: str) -> float:
    """Relative luminance by WCAG 2.2."""
    shares = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (s / 12.92 if s <= 0.04045 else ((s + 0.055) / 1.055) ** 2.4 for s in shares)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("mode", [0, 1], ids=["light", "dark"])
def test_text_is_legible_on_its_background(mode: int) -> None:
    style = (Path(figures_module.__file__).parent / "page.css").read_text()
    blocks = re.findall(r":root \{(.*?)\}", style, re.DOTALL)
    colors = dict(re.findall(r"--([\w-]+): (#\w{6})", blocks[mode]))
    for name in ("ink", "soft", "good", "bad", "limit", "accent"):
        for ground in ("paper", "panel"):
            light, dark = sorted((luminance(colors[name]), luminance(colors[ground])), reverse=True)
            assert (light + 0.05) / (dark + 0.05) >= 4.5, (name, ground)
