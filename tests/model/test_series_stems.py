"""Stems of sensor series that compute statistics or lengths."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor

from triptych.errors import ModelError
from triptych.model.build import build
from triptych.model.config import EncoderConfig, StemConfig
from triptych.model.stems.convolved import ConvolvedStem, prime_factors
from triptych.model.stems.graded import GradedStem
from triptych.model.stems.norms import NormsStem
from triptych.model.stems.statistics import RIDGE, statistics
from triptych.schema import Modality, Schema
from triptych.system.bundle import graphs

SERIES = Modality("m", "series", frames=7, channels=3, center=(0.0, 0.5, 1.0), scale=(1.0, 2.0, 3.0))
SCHEMA = Schema("s", (SERIES,), "y", "classification", "accuracy", ("no", "yes"))


def gappy() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    raw = torch.randn(5, 7, 3, generator=generator)
    raw = raw.masked_fill(torch.rand(5, 7, 3, generator=generator) < 0.4, math.nan)
    raw[1, :3] = math.nan
    return raw


def test_statistics_are_those_of_the_measured_samples_alone() -> None:
    x = torch.tensor([[[2.0, 0.0], [0.0, 0.0], [5.0, 0.0], [0.0, 0.0]]])
    missing = torch.tensor([[[False, True], [True, True], [False, True], [True, True]]])
    found = statistics(x, missing)[0]
    values, presence, slope = [3.5, 1.5, 2.0, 5.0, 2.0, 5.0], [1.0, 0.5**0.5], 0.375 / (0.0625 + RIDGE)
    assert found[:, 0].tolist() == pytest.approx([*values, *presence, 3.5, slope, 0.0], abs=1e-5)
    assert found[:, 1].tolist() == [0.0] * 11


def test_a_line_has_its_slope_and_its_last_quarter() -> None:
    x = torch.arange(400.0).view(400, 1) / 100
    found = statistics(x, torch.zeros(400, 1, dtype=torch.bool))[:, 0]
    assert found[9].item() == pytest.approx(4 * (1 / 12) / (1 / 12 + RIDGE), rel=1e-3)
    assert found[10].item() == pytest.approx(x[300:].mean().item())


@pytest.mark.parametrize("form", ["statistics", "graded", "norms", "convolved"])
@torch.no_grad()
def test_they_survive_gaps_and_export_as_they_compute(form: str) -> None:
    sizes = {"dim": 8, "depth": 1, "heads": 2, "frames_per_token": 3, "modalities": {"m": {"form": form}}}
    model, raw = build("late_fusion", SCHEMA, **sizes).eval(), gappy()
    tokens = model.encode("m", raw)
    assert tokens.real()[1].tolist() == [False, True, True]
    assert tokens.x.isfinite().all()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    graph = graphs._encode_graph(graphs.frozen(model), "m")
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    x, weights = session.run(None, {"m": raw.numpy()})
    assert np.array_equal(weights > 0, tokens.real())
    assert np.allclose(x[tokens.real().numpy()], tokens.x[tokens.real()], atol=1e-5)


@torch.no_grad()
def test_a_grade_is_how_far_a_statistic_is_through_a_range() -> None:
    series = Modality("m", "series", frames=4, channels=1, center=(0.0,), scale=(1.0,))
    stem = GradedStem(series, EncoderConfig(2, StemConfig(frames_per_token=4)), "float32")
    found = stem.read(torch.tensor([[-3.0, 0.35, 1.35]])).unflatten(1, (5, 3))[0]
    assert found[0].tolist() == pytest.approx([-3.0, 0.35, 1.35])
    assert found[:, 0].tolist()[1:] == [0.0] * 4
    assert found[1:, 1].tolist() == pytest.approx([1.0, 1.0, 0.5, 0.0])
    assert found[1:, 2].tolist() == pytest.approx([1.0, 1.0, 1.0, 0.5])


@torch.no_grad()
def test_a_length_does_not_depend_on_how_a_sensor_is_turned() -> None:
    series = Modality("m", "series", frames=2, channels=3, center=(0.0,) * 3, scale=(2.0, 2.0, 2.0))
    stem = NormsStem(series, EncoderConfig(2, StemConfig(frames_per_token=2)), "float32")
    stem.project.weight.zero_()
    stem.position.weight.zero_()
    stem.project.weight[0, 6] = 1.0  # of the first frame: three values, three gaps, then the length
    turned = [torch.tensor([[axes, [0.0] * 3]]) for axes in ([3.0, 4.0, 0.0], [0.0, -5.0, 0.0])]
    assert [stem(one).x[0, 0, 0].item() for one in turned] == pytest.approx([math.asinh(2.5)] * 2)
    two = dataclasses.replace(series, channels=2, center=(0.0, 0.0), scale=(1.0, 1.0))
    with pytest.raises(ModelError, match="lengths need three axes"):
        NormsStem(two, EncoderConfig(), "float32")


@torch.no_grad()
def test_a_convolved_token_sees_what_its_convolutions_reach_and_no_more() -> None:
    series = Modality("m", "series", frames=96, channels=2, center=(0.0,) * 2, scale=(1.0,) * 2)
    stem = ConvolvedStem(series, EncoderConfig(4, StemConfig(frames_per_token=8, hidden=6)), "float32").eval()
    assert (stem.tokens, len(stem.layers)) == (12, 3)
    raw = torch.randn(1, 96, 2, generator=torch.Generator().manual_seed(0))
    seen = []
    for frame in range(96):
        other = raw.clone()
        other[0, frame] += 1.0
        if not torch.equal(stem(raw).x[0, 5], stem(other).x[0, 5]):
            seen.append(frame)
    beyond = 4 + 2 * 2 + 4 * 2  # reach of each convolution times the steps between its inputs
    assert seen == list(range(40 - beyond, 48 + beyond))


@torch.no_grad()
def test_convolved_tokens_move_with_what_they_see() -> None:
    series = Modality("m", "series", frames=96, channels=3, center=(0.0,) * 3, scale=(1.0,) * 3)
    stem = ConvolvedStem(series, EncoderConfig(4, StemConfig(frames_per_token=4, hidden=6)), "float32").eval()
    stem.position.weight.zero_()
    raw = torch.zeros(1, 96, 3)
    raw[0, 36:40] = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    later = raw.roll(4, dims=1)
    assert torch.allclose(stem(raw).x[0, 4:16], stem(later).x[0, 5:17], atol=1e-6)


def test_a_run_has_a_convolution_per_prime_factor() -> None:
    assert [prime_factors(run) for run in (1, 2, 7, 8, 12, 50)] == [(1,), (2,), (7,), (2, 2, 2), (2, 2, 3), (2, 5, 5)]
    for run in (1, 7, 12):
        series = Modality("m", "series", frames=24, channels=1, center=(0.0,), scale=(1.0,))
        stem = ConvolvedStem(series, EncoderConfig(4, StemConfig(frames_per_token=run, hidden=5)), "float32")
        assert stem(torch.zeros(2, 24, 1)).x.shape == (2, -(-24 // run), 4)


@torch.no_grad()
def test_a_batch_norm_learns_what_is_usual_and_then_answers_row_by_row() -> None:
    series = Modality("m", "series", frames=24, channels=1, center=(0.0,), scale=(1.0,))
    stem = ConvolvedStem(series, EncoderConfig(4, StemConfig(frames_per_token=4, hidden=5)), "float32")
    raw = torch.randn(60, 24, 1, generator=torch.Generator().manual_seed(0))
    for _ in range(200):
        together = stem(raw).x
    stem.eval()
    assert torch.allclose(stem(raw).x, together, atol=0.05)
    assert torch.allclose(stem(raw[:1]).x, stem(raw).x[:1], atol=1e-6)
