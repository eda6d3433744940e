"""The page about S3 says what made figures say, by rules with answers known by hand."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "bench"))

import s3_page  # noqa: E402

RESULT = ROOT / "docs" / "results" / "s3.json"


def run(curve: dict[str, float], share: float) -> dict[str, Any]:
    auto = {"share": share, "interval": [0.1, share]}
    random = {"0.5": curve["0.5"] - 0.1}
    return {"fresh": 0.3, "specialised": 0.5, "curve": curve, "random": random, "auto": auto, "fixed": 0.55}


HUMP = [run({"1": 0.6 + d, "0.5": 0.8 + d, "0.1": 0.4 + d}, 0.5) for d in (0.0, 0.01, 0.02)]
NOISY = [run({"1": a, "0.5": b, "0.1": 0.4}, 1.0) for a, b in ((0.6, 0.5), (0.5, 0.8), (0.7, 0.6))]
FALL = [run({"1": 0.6, "0.5": 0.5, "0.1": 0.4}, 1.0)] * 3


def made() -> dict[str, Any]:
    machine = {"cpu": "Fast 9000", "packages": {"torch": "2"}}
    runs = {"s3-2": HUMP, "s3-8": FALL, "cross": [{"quality": 0.7}] * 3, "supervised": [{"quality": 0.75}] * 3}
    factor = {"accuracy": {"shared": 0.9, "unique.one": 0.8, "unique.two": 0.6, "together": 0.25}, "joined": 0.4}
    poorer = {**factor, "accuracy": {**factor["accuracy"], "unique.one": 0.4, "unique.two": 0.4}}
    bits = {"place_bits": 1.5, "value_bits": {"shared": 0.5, "unique": 0.4, "part": 0.3}, "selectivity": 0.9}
    return {
        "steps": 150,
        "select_steps": 50,
        "rows": 1600,
        "environment": machine,
        "sets": {"one": {"metric": "accuracy", "runs": runs}},
        "factors": {"s3": [{**factor, **bits}] * 3, "cross": [poorer] * 3},
        "speed": {
            "granularity": 8,
            "tokens": 24,
            "p50_s": {"all": {"1": 1.6e-4}, "row": {"1": 2e-4, "0.5": 1e-4}, "score": {"1": 2e-4, "0.5": 5e-5}},
        },
    }


def test_whether_the_reverse_u_appears() -> None:
    assert s3_page.reverse_u(HUMP, 1.0) == "yes"
    assert s3_page.reverse_u(NOISY, 1.0) == "in the mean only"
    assert s3_page.reverse_u(FALL, 1.0) == "no"
    assert s3_page.reverse_u(FALL, -1.0) == "no"
    assert s3_page.reverse_u(HUMP[:1], 1.0) == "in the mean only"
    assert (s3_page.peak(HUMP, 1.0), s3_page.peak(FALL, -1.0)) == ("0.5", "0.1")


def test_how_far_automatic_p_is_from_the_best() -> None:
    assert s3_page.distance(HUMP[0], 1.0) == 0
    assert s3_page.distance(NOISY[1], 1.0) == pytest.approx(0.3)
    assert s3_page.distance(FALL[0], -1.0) == pytest.approx(0.2)


def test_the_best_control_depends_on_the_metric() -> None:
    one = made()["sets"]["one"]
    assert s3_page.best_control(one) == "supervised"
    assert s3_page.best_control({**one, "metric": "mae"}) == "cross"


def test_the_page_holds_what_was_measured() -> None:
    page = s3_page.page(json.loads(json.dumps(made())))
    assert "appears in 1 of 2 cases, in the mean only in 0, not at all in 1." in page
    assert "supervised: χ=2 +0.060; χ=8 −0.150" in page
    assert "knows less of the unique factors than S3, by 0.300 ± 0.000." in page
    assert "| score | 0.200 (1.25) | 0.050 (0.31) |" in page
    assert "best over random at p = 0.5" in page
    empty = s3_page.page({**made(), "sets": {}})
    assert "## Curves" not in empty


def test_pictures_are_drawn(tmp_path: Path) -> None:
    s3_page.draw(made(), tmp_path)
    assert (tmp_path / "s3-one.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.skipif(not RESULT.exists(), reason="not measured yet: docs/results holds no s3.json")
def test_the_page_equals_the_measurements() -> None:
    assert (ROOT / "docs" / "s3.md").read_text() == s3_page.page(json.loads(RESULT.read_text()))


def test_what_a_stage_adds_in_words() -> None:
    assert s3_page.added(made(), "specialise") == "+20.000 points on average, better in 6 of 6 runs"
    assert s3_page.added(made(), "select") == "+10.500 points on average, better in 6 of 6 runs"
    assert s3_page.added(made(), "sparsify") == "+10.000 points on average, better in 3 of 6 runs"


def test_what_leaving_routes_out_changes_in_words() -> None:
    record = made()
    row, random, score = (s3_page.left_out(record, way) for way in ("row", "random", "score"))
    assert row == "+5.000 points on average with half of the routes, against all of them"
    assert random == "−5.000 points on average with half of the routes, against all of them"
    assert score == "−5.500 points on average with automatic p, against all of them"
    assert s3_page.left_out(record, "batch") is None
