"""`measure`, `compress` and `export` on a saved model and a real dataset folder."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from triptych.cli_show import without_samples

Run = Callable[..., Any]


@pytest.fixture(scope="module")
def model(tiny_data: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from triptych import build, save_model

    sizes = {"dim": 16, "depth": 1, "heads": 2, "hidden": 16, "head_hidden": 16}
    network = build("late_fusion", tiny_data.schema.only("series", "table"), **sizes)
    return Path(save_model(network, tmp_path_factory.mktemp("model") / "model"))


@pytest.mark.slow
def test_measure_names_candidates_and_keeps_raw_samples_in_the_folder(
    triptych: Run, model: Path, tiny_dataset: Path, tmp_path: Path
) -> None:
    ran = triptych(
        "measure", f"a={model}", f"b={model}", "--data", tiny_dataset, "--repeat", 10, "--warmup", 1, "--out", tmp_path
    )
    assert ran.code == 0, ran.err
    assert ran.line["reports"].keys() == {"a", "b"}
    for report in ran.line["reports"].values():
        assert {"quality", "p50_s", "peak_bytes", "size_bytes"} <= report.keys()
    assert "samples_s" not in json.dumps(ran.line)
    stored = json.loads((tmp_path / "reports.json").read_text())
    assert len(stored["a"]["samples_s"]) == 10


def test_compress_applies_a_recipe_and_saves_the_model(
    triptych: Run, model: Path, tiny_dataset: Path, tmp_path: Path
) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text('[[step]]\ntechnique = "PruneChannels"\nfraction = 0.5\n')
    out = tmp_path / "lean"
    ran = triptych("compress", model, "--recipe", recipe, "--data", tiny_dataset, "--out", out)
    assert ran.code == 0, ran.err
    assert ran.line["params"] < ran.line["params_reference"]
    assert triptych("inspect", out).line["params"] == ran.line["params"]


def test_compress_refuses_an_unknown_training_option(
    triptych: Run, model: Path, tiny_dataset: Path, tmp_path: Path
) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text('[[step]]\ntechnique = "PruneChannels"\nfraction = 0.5\n')
    ran = triptych("compress", model, "--recipe", recipe, "--data", tiny_dataset, "--out", tmp_path, "--train.epoch", 3)
    assert ran.code == 2
    assert "epoch" in ran.line["error"]


def test_export_writes_a_bundle_that_answers(triptych: Run, model: Path, tiny_dataset: Path, tmp_path: Path) -> None:
    bundle, out = tmp_path / "bundle", tmp_path / "answers.jsonl"
    ran = triptych("export", model, "--data", tiny_dataset, "--out", bundle)
    assert ran.code == 0, ran.err
    assert ran.line["bundle"] == str(bundle)
    assert ran.line["bundle_bytes"] == sum(file.stat().st_size for file in bundle.rglob("*") if file.is_file())
    assert triptych("inspect", bundle).line["verified"]
    ran = triptych("predict", bundle, "--data", tiny_dataset, "--split", "test", "--out", out)
    assert ran.code == 0, ran.err
    assert ran.line["rows"] == len(out.read_text().splitlines()) == 16


def test_samples_are_left_out_at_every_level() -> None:
    report = {"p50_s": 1.0, "samples_s": [1.0], "parts": {"a": {"p50_s": 2.0, "samples_s": [2.0]}}}
    assert without_samples(report) == {"p50_s": 1.0, "parts": {"a": {"p50_s": 2.0}}}
