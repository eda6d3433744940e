"""Integers: close to the original, on their grids, with ranges that data gave."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.algorithm.checks import stored_bytes
from tests.model import tiny
from triptych.algorithm import Int8, Int8Weights, PruneHeads, compress
from triptych.algorithm.weights.quantize import least_error_range, rounding_error, subsets
from triptych.errors import RecipeError
from triptych.model import Multimodal
from triptych.model.dense import Dense
from triptych.system.bundle.graphs import _IntegerDense, export_fused, frozen
from triptych.system.bundle.trace import trace
from triptych.system.runtime import session

BATCH = tiny.batch(6)
TECHNIQUES = [Int8Weights(), Int8("minmax"), Int8("mse"), Int8("percentile", percentile=99.9)]


@torch.no_grad()
def signal_to_noise_db(model: Multimodal, other: Multimodal) -> float:
    """Of the deviations between rows, since a constant answer would be no achievement."""
    one, two = model(BATCH), other(BATCH)
    return float(10 * torch.log10((one - one.mean(dim=0)).square().sum() / (one - two).square().sum()))


def integer_layers(model: Multimodal) -> dict[str, Dense]:
    return {n: m for n, m in model.named_modules() if isinstance(m, Dense) and m.precision == "int8"}


@pytest.mark.parametrize("technique", TECHNIQUES, ids=repr)
@pytest.mark.parametrize("name", tiny.NETWORKS)
def test_the_answers_stay_close(name: str, technique: Any) -> None:
    model = tiny.network(name)
    small = compress(model, [technique], [BATCH])
    # random networks; ranges that serve every subset cost complete rows some dB, weights of seven bits up to three more
    assert signal_to_noise_db(model, small) > 13


@pytest.mark.parametrize("technique", TECHNIQUES[:2], ids=repr)
@torch.no_grad()
def test_the_exported_integers_compute_the_same(technique: Any) -> None:
    small = compress(tiny.network(), [technique], [BATCH])
    stored = frozen(small).state_dict()
    matrices = [t for n, t in stored.items() if n.endswith("weight") and t.ndim == 2]
    assert {t.dtype for t in matrices} == {torch.int8}
    assert max(int(t.to(torch.int32).abs().max()) for t in matrices) <= 127
    beside_integers = [stored[f"{name}.weight"].to(torch.int32).abs().max() for name in integer_layers(small)]
    assert {int(most) for most in beside_integers} <= {63}
    assert torch.allclose(frozen(small)(BATCH), small(BATCH), atol=1e-4)


@torch.no_grad()
def test_the_largest_integer_products_do_not_saturate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dense = Dense(64, 8, precision="int8")
    dense.weight.fill_(1.0)
    dense.weight[4:] = -1.0
    dense.high.fill_(1.0)
    x = torch.ones(4, 64)
    graph = trace(_IntegerDense(dense), [x], ["x"], ["y"], [{}])
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    monkeypatch.setattr(session, "SessionOptions", lambda: options)
    started = session.start_session(graph, "int8", threads=1)
    nodes = [node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node]
    assert "MatMulIntegerToFloat" in nodes
    (found,) = started.run(None, {"x": x.numpy()})
    assert found[0].tolist() == pytest.approx([64.0] * 4 + [-64.0] * 4, rel=1e-5)


def test_a_session_multiplies_integers_as_integers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = compress(tiny.network("late_fusion"), [Int8()], [BATCH])
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    monkeypatch.setattr(session, "SessionOptions", lambda: options)
    session.start_session(export_fused(small), small.config.precision, threads=1)
    nodes = [node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node]
    assert nodes.count("MatMulIntegerToFloat") == len(integer_layers(small))


def test_integers_take_about_a_quarter() -> None:
    model = tiny.network("late_fusion", "words", dim=64, head_hidden=64)
    small = compress(model, [Int8Weights()])
    assert stored_bytes(small) < 0.35 * stored_bytes(model)


def test_calibration_ends_with_observing_off_and_every_range_set() -> None:
    small = compress(tiny.network(exits=True), [Int8()], [BATCH])
    layers = integer_layers(small)
    assert "exits.sound.up" in layers
    assert not any(layer.observing for layer in layers.values())
    assert all(layer.low <= 0 <= layer.high and layer.high > layer.low for layer in layers.values())


def test_minmax_ranges_are_what_the_data_reached() -> None:
    model = tiny.network("late_fusion", "facts")
    seen: list[Tensor] = []
    handle = model.head.up.register_forward_pre_hook(lambda _m, inputs: seen.append(inputs[0]))
    batches = [tiny.batch(3, "facts", seed=seed) for seed in (0, 1)]
    with torch.no_grad():
        for batch in batches:
            model(batch)
    handle.remove()
    head = compress(model, [Int8("minmax")], batches).head.up
    assert head.low.item() == pytest.approx(min(0.0, torch.cat(seen).min().item()), rel=0.01)
    assert head.high.item() == pytest.approx(torch.cat(seen).max().item(), rel=0.01)


def test_pixels_are_multiplied_as_they_are() -> None:
    scale, zero = (
        compress(tiny.network(), [Int8()], [BATCH]).get_submodule("encoders.picture.stem.project").input_grid()
    )
    assert scale.item() == 1 / 64
    assert zero.item() == 128


def test_calibrating_again_starts_afresh() -> None:
    model = tiny.network("late_fusion", "facts")
    loud = tiny.batch(4, "facts")
    loud = type(loud)({"facts": loud.inputs["facts"] * 1e6})
    once = compress(model, [Int8("minmax")], [tiny.batch(4, "facts")])
    twice = compress(compress(model, [Int8("minmax")], [loud]), [Int8("minmax")], [tiny.batch(4, "facts")])
    assert torch.equal(once.head.up.high, twice.head.up.high)


def test_layers_that_no_batch_reaches_are_named() -> None:
    with pytest.raises(RecipeError, match=r"encoders\.facts.*all modalities"):
        compress(tiny.network(), [Int8()], [tiny.batch(4, "sound", "words", "motion", "picture")])


def test_no_batches_are_an_error() -> None:
    with pytest.raises(RecipeError, match="at least one batch"):
        compress(tiny.network(), [Int8()], [])


@torch.no_grad()
def test_an_integer_network_can_be_pruned_and_go_back_to_integer_weights() -> None:
    small = compress(tiny.network(), [Int8(), PruneHeads(), Int8Weights()], [BATCH])
    assert small.config.precision == "int8_weights"
    assert small(BATCH).isfinite().all()


def test_the_rounding_error_by_hand() -> None:
    values = torch.tensor([0.0, 1.0, 2.5, 300.0])
    assert rounding_error(values, 0.0, 255.0) == pytest.approx((0.25 + 45.0**2) / 4)
    assert rounding_error(torch.tensor([-1.0, 0.0, 1.0]), -128.0, 127.0) == 0


@given(st.floats(-5, 0), st.floats(0, 5), st.integers(0, 9))
@settings(deadline=None, max_examples=30)
def test_the_least_error_range_lies_inside_and_is_no_worse(low: float, high: float, seed: int) -> None:
    values = torch.randn(500, generator=torch.Generator().manual_seed(seed)).clamp(low, high)
    inner = least_error_range(values, low, high)
    assert low <= inner[0] <= 0 <= inner[1] <= high
    assert rounding_error(values, *inner) <= rounding_error(values, low, high) + 1e-12


def test_outliers_are_clipped_by_percentile_and_by_error() -> None:
    model = tiny.network("late_fusion", "facts")
    batch = tiny.batch(64, "facts")
    facts = batch.inputs["facts"].nan_to_num()
    model.encoders["facts"].blocks.norm.weight.data[0] = 40.0
    data = [type(batch)({"facts": facts})]
    highs = {
        c: compress(model, [Int8(c, percentile=95)], data).head.up.high.item() for c in ("minmax", "mse", "percentile")
    }
    assert highs["percentile"] < highs["minmax"]
    assert highs["mse"] <= highs["minmax"]
    assert not math.isnan(highs["mse"])


def test_what_may_be_left_of_some_modalities() -> None:
    assert subsets(("a",)) == []
    assert subsets(("a", "b")) == [("a",), ("b",)]
    assert subsets(("a", "b", "c")) == [("a",), ("b",), ("c",), ("b", "c"), ("a", "c"), ("a", "b")]


@pytest.mark.parametrize("name", ["bottleneck_fusion", "cross_fusion", "hybrid_fusion"])
@torch.no_grad()
def test_complete_rows_calibrate_what_is_read_when_a_modality_is_missing(name: str) -> None:
    model = tiny.network(name, "picture", "motion", fusion_depth=1)
    batch = tiny.batch(6, "picture", "motion")
    head = compress(model, [Int8("minmax")], [batch]).head.up
    seen: list[Tensor] = []
    model.head.up.register_forward_pre_hook(lambda _m, inputs: seen.append(inputs[0]))
    for part in (batch, batch.only("picture"), batch.only("motion")):
        model(part)
    low, high = torch.cat(seen).min().item(), torch.cat(seen).max().item()
    slack = 0.02 * (high - low)  # weights are on their grid while the ranges are read
    assert head.low.item() <= low + slack
    assert head.high.item() >= high - slack
