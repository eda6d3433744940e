"""Bundles of networks with a gate: the same answers and choices as in torch, and less that is executed."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from triptych.algorithm import AdaptTokens, compress
from triptych.data.loader import batch_of
from triptych.errors import BundleError
from triptych.model import build
from triptych.model.cost import fit_price_
from triptych.system.bundle.export import export
from triptych.system.runtime import Bundle
from triptych.system.runtime.wiring import check_stages
from triptych.tokens import Batch
from triptych.train import TrainConfig

SIZES: dict[str, Any] = {
    "dim": 16,
    "depth": 1,
    "heads": 2,
    "expansion": 2.0,
    "patch": 4,
    "mels": 8,
    "max_tokens": 8,
    "frames_per_token": 2,
    "hidden": 16,
    "head_hidden": 16,
}
NAMES = ("image", "text", "series")


@pytest.fixture(scope="module")
def data(tiny_data):
    return tiny_data


@pytest.fixture(scope="module")
def model(data):
    torch.manual_seed(0)
    schema = dataclasses.replace(data.schema, modalities=tuple(data.schema[name] for name in NAMES))
    plain = build("early_fusion", schema, fusion_depth=1, **SIZES)
    technique = AdaptTokens(budget=0.5, shares=(0.0, 0.5, 1.0))
    model = compress(plain, [technique], data, train=TrainConfig(epochs=1, batch_size=16, precision="float32"))
    with torch.no_grad():  # a few steps teach no gate to tell rows apart
        model.gate.out.weight.normal_(std=3.0)
    fit_price_(model, [everything(data)], 0.5)
    return model


@pytest.fixture(scope="module")
def folder(model, data, tmp_path_factory):
    return export(model, tmp_path_factory.mktemp("gated") / "bundle", data)


@pytest.fixture(scope="module")
def bundle(folder):
    return Bundle.load(folder, check_golden=True)


def whole_rows(data) -> list[int]:
    """The first sixteen training rows that lack none of the modalities."""
    rows = ((i, data.train.raw(i)) for i in range(len(data.train)))
    return [i for i, row in rows if all(row[name] is not None for name in NAMES)][:16]


def everything(data) -> Batch:
    return Batch(batch_of(data.train, whole_rows(data)).only(*NAMES).inputs)


def arrays(batch: Batch) -> dict[str, np.ndarray]:
    return {name: x.numpy() for name, x in batch.inputs.items()}


@torch.no_grad()
def chosen(model, batch: Batch) -> torch.Tensor:
    return model.gate.choose(model.gate.summaries(model.look_all(batch)))


def rows_of(inputs):
    return [{name: x[i : i + 1] for name, x in inputs.items()} for i in range(16)]


def test_the_budget_is_met_on_average(model, data):
    with torch.no_grad():
        gate, batch = model.gate, everything(data)
        cost = gate.cost[gate.scores(gate.summaries(model.look_all(batch))).argmax(dim=1)]
    assert cost.mean() <= 0.5
    assert len(chosen(model, batch).unique(dim=0)) > 1


@pytest.mark.parametrize("engine", ["fused", "staged"])
def test_every_engine_answers_and_chooses_as_the_network(bundle, model, data, engine):
    batch = everything(data)
    counts, tokens = chosen(model, batch), torch.tensor([model.gate.counts[name][-1] for name in NAMES])
    with torch.no_grad():
        wanted = model(batch).numpy()
    answer = bundle.answer(arrays(batch), engine)
    np.testing.assert_allclose(answer.output, wanted, atol=1e-4)
    np.testing.assert_allclose([list(row.values()) for row in answer.shares], (counts / tokens).numpy(), atol=1e-6)
    used = [tuple(name for name, count in zip(NAMES, row, strict=True) if count) for row in counts.tolist()]
    assert list(answer.used) == used
    np.testing.assert_allclose(bundle.run(arrays(batch), engine), wanted, atol=1e-4)
    alone = [bundle.run(row, engine)[0] for row in rows_of(arrays(batch))]
    np.testing.assert_allclose(alone, wanted, atol=1e-4)


@torch.no_grad()
def test_a_missing_modality_is_accepted_and_told(bundle, model, data):
    batch = everything(data)
    for name in NAMES:
        given = batch.only(*(other for other in NAMES if other != name))
        answer = bundle.answer(arrays(given))
        np.testing.assert_allclose(answer.output, model(given).numpy(), atol=1e-4)
        assert all(row[name] == 0 for row in answer.shares)
        assert all(used and name not in used for used in answer.used)


def test_rows_that_chose_alike_run_together_on_as_many_tokens_as_they_kept(bundle, model, data, monkeypatch):
    batch, seen = everything(data), []
    run = bundle.stages.run

    def spy(name, feed):
        seen.append((name, feed["x"].shape if name.endswith(".blocks") else None))
        return run(name, feed)

    monkeypatch.setattr(bundle.stages, "run", spy)
    bundle.run(arrays(batch), "staged")
    executed = [(name.removesuffix(".blocks"), shape[:2]) for name, shape in seen if shape]
    patterns = chosen(model, batch).unique(dim=0, return_counts=True)
    wanted = [
        (name, (rows, count))
        for pattern, rows in zip(*(part.tolist() for part in patterns), strict=True)
        for name, count in zip(NAMES, pattern, strict=True)
        if count
    ]
    assert sorted(executed) == sorted(wanted)
    assert sum(rows * count for _, (rows, count) in executed) == chosen(model, batch).sum()


def test_predictions_say_what_was_used(bundle, data):
    raw = [data.train.raw(i) for i in whole_rows(data)[:4]]
    rows = [{name: row[name] for name in NAMES} for row in raw]
    for prediction in bundle.predict_many(rows):
        assert prediction.missing == ()
        assert prediction.used == tuple(name for name in NAMES if prediction.shares[name] > 0)
    alone = bundle.predict(text=rows[0]["text"])
    assert alone.used == ("text",)
    assert set(alone.shares) == {"text"}


def test_the_manifest_knows_what_each_choice_executes(bundle, model):
    choices = bundle.manifest.stages["gate"].facts["choices"]
    assert [row[:-1] for row in choices] == model.gate.keep.tolist()
    whole = bundle.manifest.stages["fused"].facts["flops"]
    assert min(row[-1] for row in choices) < 0.5 * whole < max(row[-1] for row in choices)


def test_a_gate_without_its_graphs_is_refused(bundle):
    stages = dict(bundle.manifest.stages)
    del stages["text.blocks"]
    with pytest.raises(BundleError, match=r"a gate needs all of its graphs.*text\.blocks"):
        check_stages(bundle.schema, stages)
