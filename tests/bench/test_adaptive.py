"""The page on adaptive allotment: its rules by hand, and noise that does what it says."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "bench"))

import adaptive_page  # noqa: E402
from corruption import Corrupt, corrupted  # noqa: E402

from tests.model import tiny  # noqa: E402


@pytest.mark.parametrize("name", [m.name for m in tiny.MODALITIES])
def test_noise_replaces_as_much_as_it_is_strong_and_nothing_that_is_missing(name: str) -> None:
    modality = next(m for m in tiny.MODALITIES if m.name == name)
    raw, generator = tiny.batch(4).inputs[name], torch.Generator().manual_seed(0)
    none, half, all_of_it = (corrupted(modality, raw, torch.full((4,), s), generator) for s in (0.0, 0.5, 1.0))
    assert torch.equal(none.nan_to_num() if none.is_floating_point() else none, raw.nan_to_num())
    for noisy in (half, all_of_it):
        assert noisy.dtype == raw.dtype
        if raw.is_floating_point():
            assert noisy.isnan().equal(raw.isnan())
        if name == "words":
            assert (noisy == 0).equal(raw == 0)
    distance = [(x.float() - raw.float()).nan_to_num().abs().mean() for x in (none, half, all_of_it)]
    assert distance[0] == 0 < distance[1] < distance[2]


def test_at_most_one_modality_of_a_row_is_corrupted() -> None:
    batch = tiny.batch(16)
    noisy = Corrupt(tiny.schema(), 1.0)(batch, torch.Generator().manual_seed(0))
    changed = torch.stack(
        [
            (noisy.inputs[n].float() - x.float()).nan_to_num().flatten(1).abs().sum(1) > 0
            for n, x in batch.inputs.items()
        ]
    )
    assert changed.sum(dim=0).max() == 1
    assert changed.any(dim=0).float().mean() > 0.8


def test_noise_may_leave_nothing_of_a_modality() -> None:
    batch, schema = tiny.batch(16), tiny.schema()
    name = next(m.name for m in schema.modalities if m.kind == "image")
    black = replace(batch, inputs={**batch.inputs, name: torch.zeros_like(batch.inputs[name])})
    whole, some = (
        [Corrupt(schema, 1.0, share)(b, torch.Generator().manual_seed(0)).inputs[name] for b in (batch, black)]
        for share in (1.0, 0.0)
    )
    hit = (whole[1] > 0).flatten(1).any(dim=1)
    assert whole[0][hit].equal(whole[1][hit])
    assert not some[0][hit].equal(some[1][hit])


def run(quality: float, cost: float, ratio: float) -> dict[str, Any]:
    return {
        "cost": cost / 100,
        "environment": {"load_1m": 1.25},
        "dense": {"quality": 0.9, "p50_s": 1e-3},
        "adaptive": {
            "quality": quality,
            "p50_ratio": ratio,
            "p50_s": ratio * 1e-3,
            "batch_ratio": 0.75,
            "drop_interval": [0.08, 0.12],
        },
    }


def one(*runs: dict[str, Any], metric: str = "accuracy") -> dict[str, Any]:
    told = {"quality": 0.8, "one_alone": 0.3, "shares": {"image": 0.5}, "skipped": {"image": 0.25}}
    costs = [{**told, "cost": run["cost"]} for run in runs]
    ways = dict.fromkeys(set(adaptive_page.WAYS) - {"cascade"}, costs)
    noise = [{"image": [{"strength": s, "share": share} for s, share in ((0.0, 0.5), (1.0, 0.1))]}]
    options = {"network": "late_fusion", "dense_seconds": 60, "gate_seconds": 20, "seconds": 30}
    options |= {"all_tokens": 0.3, "budget": 0.4, "corrupt": 0.25}
    about = {"metric": metric, "options": options, "sizes": {"dim": 8, "depth": 1}}
    return {"measured": list(runs), "cascade": [None], "noise": noise, **ways, **about}


def test_a_set_meets_what_is_asked_by_its_means() -> None:
    assert adaptive_page.meets(one(run(0.895, 50, 0.65)))
    assert adaptive_page.meets(one(run(0.89, 40, 0.6), run(0.90, 60, 0.7)))
    assert not adaptive_page.meets(one(run(0.894, 50, 0.65)))
    assert not adaptive_page.meets(one(run(0.9, 51, 0.65)))
    assert not adaptive_page.meets(one(run(0.9, 50, 0.66)))
    assert adaptive_page.meets(one(run(1.0, 50, 0.65)))
    assert not adaptive_page.meets(one(run(1.0, 50, 0.65), metric="mae"))


def test_shares_that_rise_do_not_fall() -> None:
    assert adaptive_page.falls([0.5, 0.4, 0.404, 0.1])
    assert not adaptive_page.falls([0.5, 0.4, 0.41, 0.1])
    assert not adaptive_page.falls([0.5, 0.5])


def test_the_page_says_what_was_met(tmp_path: Path) -> None:
    record = {
        "environment": {"cpu": "a processor"},
        "sets": {"one": one(run(0.9, 45, 0.6)), "two": one(run(0.8, 45, 0.6))},
    }
    record["sets"]["two"]["sizes"] |= {"connector": "linear", "mask": False, "modalities": {"face": {"depth": 0}}}
    record["sets"]["two"]["before"] = [run(0.8, 45, 0.7)]
    page = adaptive_page.page(record)
    assert (
        "two was timed twice: at first latency 70.0 %, without a gate 1.00 ms; then, as in the table, latency" in page
    )
    assert "one was timed twice" not in page
    assert "| one | 8 × 1 |" in page
    assert "Met on 1 of 2 sets (one)" in page
    assert "| two | accuracy | 90.0 | 80.0 | 10.0 [8.0, 12.0] | 45.0 | 60.0 | 1.00 → 0.600 | 75.0 | no |" in page
    assert "| one | image | 50.0 | 25.0 | 30.0 |" in page
    assert "| two | 8 × 1, linear, no masks, face × 0 | 1 | 60 | 20 | 30 | 30.0 % | 40.0 % | 25.0 % |" in page
    assert "Not measured: avdigits, fashion," in page
    assert "no classes" in page
    assert "load of the machine after measuring 1.2 to 1.2" in page
    assert "No set has been measured yet." in adaptive_page.page({"sets": {}})
    adaptive_page.plot(record, tmp_path / "plot.svg")
    assert (tmp_path / "plot.svg").stat().st_size > 1000
