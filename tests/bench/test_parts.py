"""The page of parts that were swapped one at a time."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bench"))

import parts
import parts_page

from triptych.model.channels import CHANNELS
from triptych.model.connectors import CONNECTORS
from triptych.model.stems import STEMS


def member(*quality: float, ratio: float = 1.0) -> dict[str, Any]:
    return {
        "quality": list(quality),
        "params": 2000,
        "p50_s": 1e-3,
        "p50_ratio": ratio,
        "commits": ["0123456789abcdef"],
    }


def one(metric: str = "accuracy") -> dict[str, Any]:
    members = {"plain": member(0.5, 0.6, 0.7), "better": member(0.6, 0.7, 0.9, ratio=1.5)}
    machine = {"cpu": "a processor", "packages": {"torch": "2", "onnxruntime": "1"}}
    return {
        "family": "STEMS",
        "set": "a",
        "kinds": ["audio"],
        "metric": metric,
        "environment": machine,
        "members": members,
    }


def test_a_gain_is_paired_by_seed_and_above_zero_where_better() -> None:
    mean, half = parts_page.gain(one(), "better")
    assert mean == pytest.approx(0.4 / 3)
    assert half == pytest.approx(4.303 * 0.057735 / 3**0.5, rel=1e-3)
    assert parts_page.gain(one("mae"), "better")[0] == pytest.approx(-0.4 / 3)


def test_the_page_and_the_row_say_what_was_measured() -> None:
    record = {"options": {"rows": 9600, "seeds": 3, "sizes": {"dim": 64, "depth": 2}}, "trials": {"t": one()}}
    page = parts_page.page(record)
    assert "| better | 0.733 | +0.133 ± 0.143 | 2 k | 1.00 | 1.50 |" in page
    assert "trained at commit 0123456789ab." in page
    assert parts_page.effect(record, "STEMS", "better") == "a (audio): +0.133 ± 0.143 at 1.50 times the latency"
    assert parts_page.effect(record, "STEMS", "plain") == "a (audio): the control"
    assert parts_page.effect(record, "CHANNELS", "better") is None
    assert "Nothing has been measured yet." in parts_page.page({"trials": {}})


def test_trials_swap_members_of_their_registry_and_miss_none_of_channels_and_connectors() -> None:
    tried = {family: {m for t in parts.TRIALS if t.family == family for m in t.members} for family in parts_page.TITLES}
    assert tried["CHANNELS"] == set(CHANNELS)
    assert tried["CONNECTORS"] == {*CONNECTORS, parts.NONE}
    assert tried["STEMS"] <= set(STEMS)
    assert len({trial.title for trial in parts.TRIALS}) == len(parts.TRIALS)
