"""The page about backbones and adapters says what made figures say, and finished cells are not run again."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "bench"))

import adapters  # noqa: E402
import backbones  # noqa: E402
import backbones_page  # noqa: E402

RESULTS = ROOT / "docs" / "results"
MEASURED = [name for name in ("backbones", "adapters") if (RESULTS / f"{name}.json").exists()]
OPTIONS = {"epochs": 8, "train_rows": 1500, "minutes": 3.0}
MACHINE = {"cpu": "Fast 9000", "packages": {"torch": "2"}, "commit": "0123456789abcdef"}


def run(test: float) -> dict[str, Any]:
    return {
        "validation": 0.9,
        "test": test,
        "test_interval": [test - 0.01, test + 0.01],
        "params": 1000,
        "learnt": 100,
        "training_bytes": 20_000_000,
        "seconds": 61.0,
        "epochs": 7.5,
    }


def cells(folder: Path) -> None:
    about = {
        "metric": "accuracy",
        "families": {"image": "efficientnet"},
        "rows": {"train": 1500, "validation": 375, "test": 1000},
        "environment": MACHINE,
    }
    for way, seed, test in (("fresh", 0, 0.5), ("frozen", 0, 0.8), ("frozen", 1, 0.9)):
        found = {**about, "run": run(test)}
        (folder / f"fashion-{way}-{seed}.json").write_text(json.dumps({"options": OPTIONS, "found": found}))


def test_finished_cells_are_gathered_and_told(tmp_path: Path) -> None:
    cells(tmp_path)
    record = backbones.gathered(tmp_path, OPTIONS)
    assert list(record["sets"]["fashion"]["ways"]) == ["frozen", "fresh"]
    page = backbones_page.page(json.loads(json.dumps(record)), None)
    assert (
        "| backbones frozen, each row through them once | 0.850 | [0.790, 0.810] | 100 (10.0%) | 20.0 MB | 61 |" in page
    )
    assert "1,500 rows of training, 375 of validation and all 1,000 of test; at most 8 epochs and 3 minutes" in page


def test_a_cell_is_skipped_once_it_is_done_and_never_mixed_with_other_options(tmp_path: Path) -> None:
    cells(tmp_path)
    assert backbones.finished(tmp_path, ("fashion", "frozen", 1), OPTIONS)
    assert not backbones.finished(tmp_path, ("fashion", "tuned", 0), OPTIONS)
    with pytest.raises(SystemExit, match="another --cells folder"):
        backbones.finished(tmp_path, ("fashion", "frozen", 1), {**OPTIONS, "epochs": 9})
    (tmp_path / "lora.json").write_text(json.dumps({"options": OPTIONS, "row": {"params": 3}}))
    assert adapters.finished(tmp_path, "lora", OPTIONS) == {"params": 3}
    assert adapters.finished(tmp_path, "dora", OPTIONS) is None
    with pytest.raises(SystemExit, match="another --cells folder"):
        adapters.finished(tmp_path, "lora", {})


def test_adapters_are_told_row_by_row() -> None:
    row = {"params": 100, "share": 0.1, "training_bytes": None, "step_s": 0.02, "quality": [0.5, 0.25, 0.6]}
    alone = {**row, "quality": [0.4, 0.25, 0.65]}
    options = {"also": ["head"], "epochs": 4, "minutes": 2.0, "train_rows": 1000, "seeds": 3}
    rows = {"frozen": alone, "lora": row, "x": {"error": "no"}}
    record = {"sets": {"fashion": {"options": options, "environment": MACHINE, "rows": rows}}}
    page = backbones_page.page(None, record)
    assert "| frozen | 100 (10.0%) | – | 20 ms | 0.433 ± 0.502 | – |" in page
    assert "| lora | 100 (10.0%) | – | 20 ms | 0.450 ± 0.448 | +0.017 ± 0.190 |" in page
    assert "| x | – | – | – | no | – |" in page
    assert "in a process of its own with one thread, 3 seeds." in page
    assert "at most 4 epochs and 2 minutes" in page


@pytest.mark.skipif(not MEASURED, reason="docs/results holds neither backbones.json nor adapters.json")
def test_the_page_equals_the_measurements() -> None:
    found = [backbones_page.load(RESULTS, name) for name in ("backbones", "adapters")]
    assert (ROOT / "docs" / "backbones.md").read_text() == backbones_page.page(*found)
