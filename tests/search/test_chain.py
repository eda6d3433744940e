"""From a dataset and a budget to a bundle: the whole way on data that is made in a second."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.model import tiny

from triptych.data.dataset import Dataset
from triptych.errors import BudgetError, DataError
from triptych.model.build import build
from triptych.search.budget import Budget
from triptych.search.chain import ENDINGS, MOST_TEACHERS, _Chain, fit_to_budget
from triptych.search.probe import Probe
from triptych.search.search import search
from triptych.search.training_recipe import TrainingRecipe
from triptych.system.runtime import Bundle
from triptych.train import TrainConfig

KEYS = {
    "dataset", "metric", "quality_reference", "quality", "drop_interval", "p50_s_reference", "p50_s",
    "p50_ratio_interval", "peak_bytes_reference", "peak_bytes", "size_bytes_reference", "size_bytes", "bundle",
    "report", "wall_s",
}  # fmt: skip
BRIEF = TrainConfig(epochs=1, batch_size=16, patience=None)
START = {"route": "student", "dim": 16, "depth": 1, "mixer": "depthwise", "tokens": "coarse"}


SHALLOW = """
[build]
dim = 64
depth = 1
head_hidden = 64
"""  # a reference that is quick to export: half of these tests is spent on writing graphs


@pytest.mark.slow
def test_fit_leaves_a_smaller_bundle_that_answers_and_a_report(tiny_data: Dataset, tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text(SHALLOW)
    line = fit_to_budget(
        tiny_data,
        Budget.parse("size=60%"),
        tmp_path,
        minutes=0.5,
        train={"epochs": 2, "batch_size": 16},
        repeat=20,
        recipe=tmp_path / "recipe.toml",
    )
    assert line.keys() >= KEYS
    assert json.loads(json.dumps(line)) == {k: list(v) if isinstance(v, tuple) else v for k, v in line.items()}
    assert line["size_bytes"] < 0.6 * line["size_bytes_reference"]
    bundle = Bundle.load(tmp_path / "bundle", check_golden=True)
    assert bundle.size_bytes >= line["size_bytes"] * 0.9
    assert [point.name for point in bundle.manifest.points] == ["full"]
    assert (tmp_path / "report.html").stat().st_size > 10_000
    run = json.loads((tmp_path / "run.json").read_text())
    assert next(step["name"] for step in run["steps"]) == "reference"
    told = [step["name"] for step in (*run["steps"], *run["rejected"])]
    assert {type(ending).__name__ for ending in ENDINGS} <= set(told), "every ending is either a step or rejected"
    assert all(step["reason"] for step in run["rejected"])


def test_an_ending_that_gains_nothing_is_rejected_with_the_reason(tiny_data: Dataset, tmp_path: Path) -> None:
    chain = _Chain(tiny_data, Budget(), tmp_path, 1.0, 0, 1, lambda _: None, resume=False)
    student = build("late_fusion", tiny_data.schema, dim=16, depth=1).eval()

    def same(_: object) -> Probe:
        return Probe(p50_s=1e-3, size_bytes=1000)

    assert chain._finish(student, student, same) is student
    assert [step["name"] for step in chain.rejected] == [type(ending).__name__ for ending in ENDINGS]
    assert all(step["reason"].startswith("neither smaller nor faster") for step in chain.rejected)
    assert chain.steps == []


def test_time_that_the_reference_leaves_trains_more_teachers(tiny_data: Dataset, tmp_path: Path) -> None:
    chain = _Chain(tiny_data, Budget(), tmp_path, 100.0, 0, 1, lambda _: None, resume=False)
    sizes = TrainingRecipe({"network": "late_fusion", **tiny.SIZES}, {})
    assert chain._more_teachers(sizes, BRIEF) == (), "nobody knows how long a teacher takes"
    chain.reference_s = 30.0
    teachers = chain._more_teachers(sizes, BRIEF)
    assert len(teachers) == MOST_TEACHERS - 1
    first, second = (next(teacher.parameters()) for teacher in teachers[:2])
    assert not torch.equal(first, second)
    again = _Chain(tiny_data, Budget(), tmp_path, 100.0, 0, 1, lambda _: None, resume=True)
    assert torch.equal(first, next(again._more_teachers(sizes, BRIEF)[0].parameters()))
    chain.minutes = 0.5
    assert chain._more_teachers(sizes, BRIEF) == (), "another teacher would not fit into the share"


def test_a_dataset_without_validation_rows_is_refused(tiny_data: Dataset, tmp_path: Path) -> None:
    bare = dataclasses.replace(tiny_data, splits={"train": tiny_data.train})
    with pytest.raises(DataError, match="validation"):
        fit_to_budget(bare, None, tmp_path)


def test_search_turns_down_what_breaks_a_limit_before_training_it(tiny_data: Dataset) -> None:
    model = build("late_fusion", tiny_data.schema, dim=32, depth=0).eval()
    with pytest.raises(BudgetError, match=r"size_bytes is .* over its limit"):
        search(model, Budget(size_bytes=10.0), tiny_data, trials=1, brief=BRIEF, starts=[START])


def test_search_keeps_a_smaller_candidate_and_resumes(tiny_data: Dataset, tmp_path: Path) -> None:
    model = build("late_fusion", tiny_data.schema, dim=64, depth=1).eval()
    options: dict[str, Any] = {"trials": 1, "brief": BRIEF, "starts": [START], "folder": tmp_path}
    first = search(model, Budget(), tiny_data, **options)
    assert first.best.kept
    assert first.best.model is not None
    assert (first.best.report.params or 0) < sum(p.numel() for p in model.parameters())
    assert first.best in first.front
    again = search(model, Budget(), tiny_data, **{**options, "starts": [{**START, "dim": 24}]})
    assert again.trials[0].number == 1
