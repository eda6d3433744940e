"""The page about fusions says what made figures say, by rules with answers known by hand."""

import copy
import json
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "bench"))

import fusion_page  # noqa: E402

RESULT = ROOT / "docs" / "results" / "fusion.json"


def fusion(quality: list[float], p50_s: float, params: int, without: float = 0.5) -> dict[str, Any]:
    return {
        "quality": quality,
        "without": {"a": [without] * len(quality), "b": [without - 0.1] * len(quality)},
        "train_s": [10.0] * len(quality),
        "steps": [100] * len(quality),
        "commits": ["0123456789abcdef"],
        "params": params,
        "flops": 2_000_000,
        "p50_s": p50_s,
        "peak_bytes": 40_000_000,
    }


def made() -> dict[str, Any]:
    """Late is quick; cross is best on one set and slow; early is beaten by late on both."""
    first = {
        "late": fusion([0.70, 0.71, 0.72], 1e-4, 1000, 0.6),
        "cross": fusion([0.90, 0.91, 0.92], 4e-4, 4000, 0.4),
        "early": fusion([0.69, 0.70, 0.71], 2e-4, 2000, 0.3),
    }
    second = {
        "late": fusion([0.50, 0.60, 0.70], 1e-4, 1000, 0.6),
        "cross": fusion([0.55, 0.60, 0.68], 4e-4, 4000, 0.4),
        "early": fusion([0.40, 0.45, 0.50], 2e-4, 2000, 0.3),
    }
    machine = {"cpu": "Fast 9000", "packages": {"torch": "2", "onnxruntime": "1"}}
    about = {"metric": "accuracy", "rows": {"train": 9, "validation": 9, "test": 9}, "environment": machine}
    return {
        "rows": 1000,
        "seconds": None,
        "of_tokens": ["cross", "early", "linear"],
        "sets": {"one": {**about, "fusions": first}, "two": {**about, "fusions": second}},
    }


def scaled() -> dict[str, Any]:
    def grown(power: float, at_largest: float) -> dict[str, Any]:
        costs = {str(n): {"seconds": at_largest * (n / 4096) ** power, "bytes": 1e6 * n} for n in (1024, 2048, 4096)}
        found = {"costs": costs, "growth": {"seconds": power, "bytes": 1.0}}
        return {"onnxruntime": found, "pytorch": copy.deepcopy(found)}

    fusions = {"cross": grown(2, 0.8), "early": grown(2, 0.4), "linear": grown(1, 0.1), "late": grown(0, 0.01)}
    return {"dim": 64, "dense": "cross", "fusions": fusions}


def test_the_interval_of_three_seeds_by_hand() -> None:
    mean, half = fusion_page.interval([1.0, 2.0, 3.0])
    assert (mean, half) == (2.0, pytest.approx(4.303 / 3**0.5))
    assert fusion_page.interval([0.5]) == (0.5, None)
    gap, half = fusion_page.distance([3.0, 5.0], [1.0, 1.0])
    assert (gap, half) == (3.0, pytest.approx(12.706))


def test_who_keeps_up_and_who_is_beaten() -> None:
    one, two = made()["sets"].values()
    assert [fusion_page.keeps_up(one, name) for name in ("late", "cross", "early")] == [False, True, False]
    assert all(fusion_page.keeps_up(two, name) for name in ("late", "cross"))
    assert [fusion_page.dominated(one, name) for name in ("late", "cross", "early")] == [False, False, True]
    assert fusion_page.shortfall(one, "late") == pytest.approx(0.2)
    assert fusion_page.missing(one, "early") == pytest.approx(0.3)
    assert fusion_page.ratio(one, "cross", "p50_s") == pytest.approx(4)


def test_a_lower_error_is_better() -> None:
    errors = {**made()["sets"]["one"], "metric": "mae"}
    assert fusion_page.best_of(errors) == "early"
    assert fusion_page.shortfall(errors, "cross") == pytest.approx(0.21)
    assert fusion_page.missing(errors, "late") == pytest.approx(0.3)


def test_the_advice_follows_from_the_figures() -> None:
    record = made()
    lines = dict(
        line[4:].split(": `", 1) for line in fusion_page.advice(record).splitlines() if "**: " in line or "`" in line
    )
    chosen = {need: text.split("`")[0] for need, text in lines.items()}
    assert chosen["Without a special need"] == "cross"
    assert chosen["Latency above all"] == "late"
    assert chosen["Size above all"] == "late"
    assert chosen["A modality may be missing"] == "late"
    assert "2 of 2 sets, 4.00 times" in fusion_page.advice(record)
    assert "No first choice on any of these sets**: `early`" in fusion_page.advice(record)
    for name in ("one", "two"):
        record["sets"][name]["fusions"]["early"] = fusion([0.99, 0.99, 0.99], 5e-5, 10, 0.9)
    better = fusion_page.advice(record)
    assert better.count("`early`") == 5
    assert "No first choice on any of these sets**: `cross`, `late`" in better


def test_long_sequences_get_the_cheapest_exchange_of_tokens() -> None:
    advice = fusion_page.advice({**made(), "scaling": scaled()})
    assert "`linear`** (at 4,096 tokens per modality 8.0 times as fast as dense cross-attention, `cross`;" in advice
    assert "tokens^1.00 against 2.00)" in advice


def test_where_exchange_pays() -> None:
    rows = fusion_page.exchange(made()).splitlines()
    assert rows[2].startswith("| one | cross | late | +0.200")
    assert rows[2].endswith("| 4.00 | pays |")
    assert rows[3].endswith("no difference that the seeds show |")


@pytest.mark.parametrize("record", [made(), {**made(), "scaling": scaled()}, {**made(), "sets": {}}])
def test_a_page_holds_every_set_and_fusion(record: dict[str, Any]) -> None:
    page = fusion_page.page(json.loads(json.dumps(record)))
    assert all(f"### {name}" in page for name in record["sets"])
    assert ("**cross** | 0.910 ± 0.025 |" in page) == bool(record["sets"])
    assert ("How cost grows" in page) == ("scaling" in record)


@pytest.mark.skipif(not RESULT.exists(), reason="not measured yet: docs/results holds no fusion.json")
def test_the_page_equals_the_measurements() -> None:
    assert (ROOT / "docs" / "fusion.md").read_text() == fusion_page.page(json.loads(RESULT.read_text()))
