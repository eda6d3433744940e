"""The page on adaptive allotment: its rules by hand."""

import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "bench"))

import adaptive_page  # noqa: E402


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
    noise = [
        {
            "image": [
                {"strength": s, "share": share, "dense": 0.5, "adaptive": 0.5 - s / 50}
                for s, share in ((0.0, 0.5), (1.0, 0.1))
            ]
        }
    ]
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
    assert "| one | image | 0.0 | 2.0 |" in page
    assert "| one | image | 50.0 | 25.0 | 30.0 |" in page
    assert "| two | 8 × 1, linear, no masks, face × 0 | 1 | 60 | 20 | 30 | 30.0 % | 40.0 % | 25.0 % |" in page
    assert "Not measured: avdigits, fashion," in page
    assert "no classes" in page
    assert "load of the machine after measuring 1.2 to 1.2" in page
    assert "No set has been measured yet." in adaptive_page.page({"sets": {}})
    adaptive_page.plot(record, tmp_path / "plot.svg")
    assert (tmp_path / "plot.svg").stat().st_size > 1000
