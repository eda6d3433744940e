"""The page of missing modalities follows from its figures, and the bench knows what is left to do."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "bench"))

import missing  # noqa: E402
import missing_page  # noqa: E402

RESULT = ROOT / "docs" / "results" / "missing.json"


def run(whole: float, a: float, b: float, earned: tuple[float, float] = (0.2, 0.1)) -> dict[str, Any]:
    subsets = {"": 0.3, "a": a, "b": b, "a+b": whole}
    shapley = {"a": [earned[0], 0.0, 1.0], "b": [earned[1], 0.0, 1.0]}
    return {"subsets": subsets, "shapley": shapley, "train_s": 3.0, "steps": 5, "commit": "0123456789abcdef"}


def made() -> dict[str, Any]:
    """The bank gains 0.1 where something is missing, within 0.01; dropout gains as much, give or take a lot."""
    zero = [run(0.8, 0.5, 0.4), run(0.8, 0.6, 0.5), run(0.9, 0.5, 0.4)]
    bank = [run(0.8, 0.6, 0.5), run(0.8, 0.71, 0.6), run(0.9, 0.59, 0.5)]
    dropout = [run(0.8, 0.5, 0.4), run(0.8, 0.9, 0.8), run(0.9, 0.5, 0.4)]
    machine = {"cpu": "Fast 9000", "packages": {"torch": "2"}}
    one = {"metric": "accuracy", "modalities": ["a", "b"], "rows": {}, "environment": machine}
    balance = {
        "none": [run(0.8, 0.5, 0.4, (0.4, 0.1)) for _ in range(3)],
        "adaptive": [run(0.81, 0.5, 0.4, (0.3 + d, 0.21 - d)) for d in (0.0, 0.01, -0.01)],
        "blending": [run(0.8 + d, 0.5, 0.4, (0.4, 0.1)) for d in (0.1, -0.1, 0.0)],
    }
    fills = {"zero": {"0.3": zero}, "bank": {"0.3": bank}, "dropout": {"0.3": dropout}}
    return {
        "rows": 1000,
        "balance_rows": 2000,
        "seconds": None,
        "sets": {"one": {**one, "fills": fills, "balance": balance}},
    }


def test_differences_are_paired_seed_by_seed() -> None:
    one = made()["sets"]["one"]
    runs, control = one["fills"]["bank"]["0.3"], one["fills"]["zero"]["0.3"]
    gap, half = missing_page.paired(runs, control, lambda r: missing_page.some_missing(r, one))
    assert gap == pytest.approx(0.1)
    assert half == pytest.approx(4.303 * 0.005 / 3**0.5)  # gaps 0.1, 0.105, 0.095
    assert missing_page.paired(runs[:1], control, lambda r: missing_page.with_all(r, one)) == (0.0, None)
    assert [missing_page.outcome(*pair) for pair in ((0.1, 0.05), (-0.1, 0.05), (0.1, 0.2), (0.1, None))] == [
        1,
        -1,
        0,
        0,
    ]


def test_ways_are_counted_against_zeros() -> None:
    sets = made()["sets"]
    assert missing_page.tally(sets, "bank", missing_page.some_missing) == {1: 1, 0: 0, -1: 0}
    assert missing_page.tally(sets, "bank", missing_page.with_all) == {1: 0, 0: 1, -1: 0}
    assert missing_page.tally(sets, "dropout", missing_page.some_missing) == {1: 0, 0: 1, -1: 0}
    errors = {"one": {**sets["one"], "metric": "mae"}}
    assert missing_page.tally(errors, "bank", missing_page.some_missing) == {1: 0, 0: 0, -1: 1}


def test_only_what_the_seeds_show_is_said() -> None:
    told = missing_page.told(made()["sets"]["one"]).splitlines()
    assert told[0].startswith("- `adaptive`: quality +0.010 ± 0.000, what a earns −0.100 ± 0.025, what b earns +0.110")
    assert told[1] == "- `blending`: no difference that the seeds show."


def test_a_page_and_its_plots_hold_everything(tmp_path: Path) -> None:
    record = json.loads(json.dumps(made()))
    text = missing_page.page(record)
    assert "| 30% | `bank` | 0.833 ± 0.143 | 0.583 ± " in text
    assert "| `bank` | 0 better, 0 worse, 1 not told apart | 1 better, 0 worse, 0 not told apart |" in text
    assert "| `adaptive` | 0.810 ± 0.000 | +0.010 ± 0.000 |" in text
    assert "looks at nothing gives 0.300" in text
    assert [path.name for path in missing_page.write_plots(record, tmp_path)] == ["missing.png", "balance.png"]
    assert "No set has been measured yet" in missing_page.page({**record, "sets": {}})


def test_cells_are_named_apart_and_skipped_when_done(tmp_path: Path) -> None:
    args = missing.arguments(["mosi", "icu", "--out", str(tmp_path), "--seeds", "2"])
    every = [cell for name in args.sets for cell in missing.cells(args, name)]
    assert len(every) == 2 * (2 * 4 * 4 + 5)  # two seeds; both sets' fills, mosi's balances
    paths = [cell.path(tmp_path) for cell in every]
    assert len(set(paths)) == len(paths)
    few = missing.arguments(["mosi", "--parts", "fills", "--ways", "bank", "--rates", "0,0.9", "--seeds", "1"])
    assert [(cell.fill, cell.options()) for cell in missing.cells(few, "mosi")] == [
        ("bank", {"modality_dropout": 0.0, "incomplete": rate}) for rate in (0.0, 0.9)
    ]
    with pytest.raises(SystemExit):
        missing.arguments(["mars"])


def test_what_the_cells_left_is_gathered_by_way_rate_and_balance(tmp_path: Path) -> None:
    folder = tmp_path / "icu"
    for name, record in {
        "set": {"metric": "auroc", "modalities": ["a", "b"]},
        "fills-bank_dropout-30-0": run(0.8, 0.5, 0.4),
        "fills-bank_dropout-30-1": run(0.9, 0.5, 0.4),
        "balance-on_the_fly-0": run(0.7, 0.5, 0.4),
    }.items():
        missing.write_json(folder / f"{name}.json", record)
    missing.write_json(tmp_path / "budget.json", {"rows": 5})
    found = missing.gather(tmp_path)
    one = found["sets"]["icu"]
    assert found["rows"] == 5
    assert [r["subsets"]["a+b"] for r in one["fills"]["bank_dropout"]["0.3"]] == [0.8, 0.9]
    assert one["balance"]["on_the_fly"][0]["shapley"]["a"][0] == 0.2


@pytest.mark.skipif(not RESULT.exists(), reason="not measured yet: docs/results holds no missing.json")
def test_the_page_equals_the_measurements() -> None:
    assert (ROOT / "docs" / "missing.md").read_text() == missing_page.page(json.loads(RESULT.read_text()))
