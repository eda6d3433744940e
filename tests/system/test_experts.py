"""A network of experts becomes a bundle that answers alike and says what its routers did."""

from pathlib import Path
from typing import Any

import pytest
import torch

from triptych.measure.lane import Taken
from triptych.measure.predictor import BundlePredictor, ModelPredictor
from triptych.measure.report import Report
from triptych.model import build, save_model
from triptych.system.bundle.export import export, golden_rows

SIZES: dict[str, Any] = {"dim": 16, "depth": 1, "heads": 2, "expansion": 2.0, "hidden": 16, "head_hidden": 16}


def test_bundle_and_network_tell_what_their_routers_do(tiny_regression_data: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = build("late_fusion", tiny_regression_data.schema, **SIZES, channel="experts", experts=4, active=2).eval()
    bundle = BundlePredictor(export(model, tmp_path / "bundle", tiny_regression_data), 1)
    told = bundle.describe()["routers"]
    assert all(abs(sum(one["load"]) - 1) < 1e-6 and abs(one["pairs"] - 2) < 1e-6 for one in told.values())
    save_model(model, tmp_path / "model")
    network = ModelPredictor(tmp_path / "model", 1)
    assert network.describe()["routers"] is None  # it has seen nothing
    for inputs in golden_rows(model, tiny_regression_data)[0]:
        network.run(inputs)
    assert network.describe()["routers"] == told
    report = Report(routers=told)
    assert Report.from_dict(report.to_dict()) == report
    assert Taken().routers is None


def test_a_dense_network_has_no_routers_to_tell_of(
    tiny_regression_data: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "set_num_interop_threads", lambda _: None)  # refused once torch has worked here
    model = build("late_fusion", tiny_regression_data.schema, **SIZES).eval()
    save_model(model, tmp_path / "model")
    network = ModelPredictor(tmp_path / "model", 1)
    network.run(golden_rows(model, tiny_regression_data)[0][0])
    assert network.describe()["routers"] is None
