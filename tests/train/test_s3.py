"""S3's losses, probe and choice by hand; its verbs change what they say and nothing else."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.train.small import SIZES, config
from triptych.data.factors import Factors, make_factors
from triptych.data.loader import batch_of
from triptych.errors import ModelError, RecipeError, TrainingError
from triptych.model import build
from triptych.model.s3 import routers, s3_network
from triptych.schema import Modality, Schema
from triptych.train.s3 import (
    CONTROLS,
    S3,
    SELECT,
    Alignment,
    Views,
    Weights,
    activation_information,
    choose_share,
    fit_probe,
    mutual_information,
    selectivity,
)
from triptych.train.s3.losses import across, contrast, minimality, routing_loss, same_label, within
from triptych.train.s3.objective import labels_of
from triptych.train.s3.probe import logistic, ridge
from triptych.train.s3.s3 import route_scores

MADE = make_factors(Factors(frames=2, channels=3, rows={"train": 48, "validation": 24, "test": 24}))
SHAPE: dict[str, Any] = {**SIZES, "frames_per_token": 2}
X, Y, Z = (torch.tensor(v) for v in ([[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [0.0, 1.0]], [[0.6, 0.8], [1.0, 0.0]]))
ALL = torch.tensor([True, True])
OWN = torch.eye(2, dtype=torch.bool)


def s3(**options: Any) -> S3:
    torch.manual_seed(0)
    return S3(s3_network(MADE.data.schema, granularity=2, spread=2, **{**SHAPE, **options}))


def changed(before: S3, after: S3) -> set[str]:
    tensors = after.model.state_dict()
    return {name for name, t in before.model.state_dict().items() if not t.equal(tensors[name])}


# ---- losses


def nce(*logits: float) -> float:
    """−log softmax of the first."""
    return math.log(sum(map(math.exp, logits))) - logits[0]


def test_contrasts_by_hand() -> None:
    by_hand = (nce(0.0, 0.0) + nce(2.0, 2.0)) / 2
    assert contrast(X, Y, OWN, ALL, 0.5).item() == pytest.approx(by_hand)
    mine = within({"x": X, "y": Y}, {"x": Z, "y": Z}, OWN, {"x": ALL, "y": ALL}, 1.0)
    x = (nce(0.6, 1.0) + nce(0.0, 0.8)) / 2
    y = (nce(0.8, 0.0) + nce(0.0, 0.8)) / 2
    assert mine.item() == pytest.approx((x + y) / 2)
    theirs = across({"x": X, "y": Y}, {"x": Z, "y": Y}, OWN, {"x": ALL, "y": ALL}, 1.0)
    assert theirs.item() == pytest.approx(((nce(0.0, 0.0) + nce(1.0, 1.0)) / 2 + y) / 2)


def test_rows_of_one_label_share_the_answer() -> None:
    together = contrast(X, Z, same_label(torch.tensor([1, 1])), ALL, 1.0)
    assert together.item() == pytest.approx((nce(0.6, 1.0) + nce(1.0, 0.6) + nce(0.8, 0.0) + nce(0.0, 0.8)) / 4)
    assert same_label(torch.tensor([0, -1, 0, -1])).int().tolist() == [
        [1, 0, 1, 0],
        [0, 1, 0, 0],
        [1, 0, 1, 0],
        [0, 0, 0, 1],
    ]


def test_rows_without_a_modality_do_not_count() -> None:
    more = torch.cat([X, torch.tensor([[9.0, 9.0]])]), torch.cat([Z, torch.tensor([[7.0, 7.0]])])
    known = torch.tensor([True, True, False])
    own = torch.eye(3, dtype=torch.bool)
    assert contrast(*more, own, known, 1.0).item() == pytest.approx(contrast(X, Z, OWN, ALL, 1.0).item())
    assert minimality(dict(zip("xy", more, strict=True)), {"x": known, "y": known}).item() == pytest.approx(-0.3)
    assert contrast(X, Z, OWN, torch.tensor([True, False]), 1.0) == 0
    assert across({"x": X}, {"x": X}, OWN, {"x": ALL}, 1.0) == 0


def test_minimality_draws_each_to_the_other_held_fixed() -> None:
    x, y = X.clone().requires_grad_(), Z.clone().requires_grad_()
    loss = minimality({"x": x, "y": y}, {"x": ALL, "y": ALL})
    assert loss.item() == pytest.approx(-(0.6 + 0.0) / 2)
    loss.backward()
    assert torch.allclose(x.grad, -Z / 4)
    assert torch.allclose(y.grad, -X / 4)


def test_routing_is_best_when_sure_and_even() -> None:
    sure = torch.eye(4)
    assert routing_loss(sure).item() == pytest.approx(-1, abs=1e-5)
    assert routing_loss(torch.cat([sure, torch.zeros(3, 4)])).item() == pytest.approx(-1, abs=1e-5)
    assert routing_loss(torch.full((5, 4), 0.25)).item() == pytest.approx(0, abs=1e-5)
    assert routing_loss(torch.tensor([[1.0, 0.0]] * 3)).item() == pytest.approx(0, abs=1e-5)
    half = routing_loss(torch.tensor([[1.0, 0.0], [0.5, 0.5]])).item()
    even = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert half == pytest.approx((math.log(2) / 2 - even) / math.log(2), abs=1e-5)


def test_labels_of_values_are_signs_or_quarters() -> None:
    schema = Schema("s", (Modality("a", "text"),), "y", "regression", "acc2", center=1.0, scale=2.0)
    target = torch.tensor([-2.0, 0.0, 3.0, math.nan, 0.9, 1.1])
    assert labels_of(schema, target).tolist() == [0, -1, 1, -1, 1, 1]
    assert labels_of(dataclasses.replace(schema, metric="mae"), target).tolist() == [0, 1, 3, -1, 1, 2]


# ---- views and objective


def test_two_views_are_two_changes_of_the_same_rows() -> None:
    batch = batch_of(MADE.data.train, range(6))

    def noise(one: Any, generator: torch.Generator) -> Any:
        moved = {name: x + torch.rand(x.shape, generator=generator) for name, x in one.inputs.items()}
        return dataclasses.replace(one, inputs=moved)

    double = Views(noise)(batch, torch.Generator().manual_seed(0))
    first, second = double.inputs["one"].chunk(2)
    assert not first.equal(second)
    assert (first - batch.inputs["one"]).abs().max() <= 1
    assert double.target.tolist() == batch.target.tolist() * 2
    assert double.rows.tolist() == batch.rows.tolist() * 2


@pytest.mark.parametrize("name", sorted(CONTROLS))
def test_controls_are_as_large_where_active_and_train(name: str) -> None:
    control = CONTROLS[name]
    model = control.network(MADE.data.schema, granularity=4, **SHAPE).train()
    dense = CONTROLS["cross"].network(MADE.data.schema, granularity=4, **SHAPE)
    own = sum(p.numel() for p in model.shared.parameters())
    gap = sum(p.numel() for r in routers(model).values() for p in r.parameters())
    assert abs(own - gap - sum(p.numel() for p in dense.shared.parameters())) <= 4 * 16  # biases of several experts
    batch = Views(lambda one, _: one)(batch_of(MADE.data.train, range(12)), torch.Generator())
    Alignment(control.weights)(model, batch).backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in model.shared.parameters())


# ---- verbs


@pytest.fixture(scope="module")
def stages() -> tuple[S3, S3, S3]:
    fresh = s3()
    special = fresh.specialise(MADE.data, config(epochs=1))
    return fresh, special, special.select(MADE.data, config(epochs=1))


def test_specialising_needs_no_labels_and_leaves_the_head(stages: tuple[S3, S3, S3]) -> None:
    fresh, special, _ = stages
    moved = changed(fresh, special)
    assert not any(name.startswith(("head", "fusion")) for name in moved)
    assert any(".mlps." in name for name in moved)
    assert any(".router." in name for name in moved)
    blind = dataclasses.replace(MADE.data.train, targets=np.full(48, -1))
    unlabelled = dataclasses.replace(MADE.data, splits={"train": blind})
    assert changed(fresh.specialise(unlabelled, config(epochs=1)), special) == set()


def test_selecting_moves_the_routers_alone(stages: tuple[S3, S3, S3]) -> None:
    _, special, chosen = stages
    assert changed(special, chosen) == {
        f"{name}.{p}" for name, r in routers(special.model).items() for p, _ in r.named_parameters()
    }
    assert all(p.requires_grad for p in chosen.model.parameters())


def test_sparsifying_changes_no_weight_and_the_object_stays(stages: tuple[S3, S3, S3]) -> None:
    chosen = stages[2]
    before = chosen.features(MADE.data.test)
    sparse = chosen.sparsify(0.2)
    assert changed(chosen, sparse) == set()
    assert not sparse.features(MADE.data.test).allclose(before)
    assert chosen.features(MADE.data.test).equal(before)
    assert chosen.sparsify(1.0, way="score", data=MADE.data).features(MADE.data.test).allclose(before, atol=1e-6)


@pytest.mark.parametrize("share", [0.7, 0.3])
def test_a_measured_score_lets_the_share_pass_in_every_block(stages: tuple[S3, S3, S3], share: float) -> None:
    chosen = S3(s3(depth=2).model)
    sparse = chosen.sparsify(share, way="score", data=MADE.data)
    for number in range(2):
        least = sparse.model.config.shared.blocks[number].routes.least
        passed = (route_scores(sparse.model, MADE.data.train, number) >= least).sum().item()
        assert passed == pytest.approx(share * 48 * 6 * 2, rel=0.02)


def test_features_are_unit_vectors_whatever_the_batch(stages: tuple[S3, S3, S3]) -> None:
    sparse = stages[2].sparsify(0.5)
    found = sparse.features(MADE.data.test)
    assert found.shape == (24, 2 * 16)
    assert torch.allclose(found.view(24, 2, 16).norm(dim=2), torch.ones(24, 2))
    assert torch.allclose(found, sparse.features(MADE.data.test, batch_size=5), atol=1e-5)


def test_the_choice_has_a_curve_and_an_interval(stages: tuple[S3, S3, S3]) -> None:
    choice = stages[2].choose(MADE.data, shares=(1.0, 0.5, 0.1))
    assert set(choice.curve) == {1.0, 0.5, 0.1}
    assert choice.share in choice.curve
    assert choice.interval[0] <= choice.share <= choice.interval[1]


def test_wrong_uses_say_what_to_do(stages: tuple[S3, S3, S3]) -> None:
    with pytest.raises(ModelError, match="s3_network"):
        S3(build("late_fusion", MADE.data.schema, **SHAPE))
    with pytest.raises(RecipeError, match="pass data"):
        stages[2].sparsify(0.5, way="score")
    with pytest.raises(RecipeError, match="in \\(0, 1\\]"):
        stages[2].sparsify(0.0)
    with pytest.raises(RecipeError, match="no term for balance"):
        stages[2].select(MADE.data, weights=dataclasses.replace(SELECT, route=0.1))
    with pytest.raises(RecipeError, match="not all zero"):
        Weights()
    with pytest.raises(TrainingError, match="no shares"):
        choose_share({}, np.zeros(1), MADE.data.schema, generator=np.random.default_rng(0))


# ---- choice, probe, information


def test_the_best_share_is_chosen_and_the_smaller_of_equals() -> None:
    targets = np.tile(np.arange(4), 50)

    def answers(right: float) -> np.ndarray:
        good = np.eye(4)[targets]
        return np.where(np.arange(200)[:, None] < 200 * right, good, np.roll(good, 1, axis=1))

    outputs = {1.0: answers(0.5), 0.6: answers(0.9), 0.4: answers(0.9), 0.2: answers(0.6)}
    choice = choose_share(outputs, targets, MADE.data.schema, generator=np.random.default_rng(0))
    assert choice.share == 0.4
    assert choice.interval == (0.4, 0.4)
    quality, low, high = choice.curve[0.6]
    assert quality == pytest.approx(0.9)
    assert low < quality < high
    close = {1.0: answers(0.5), 0.5: np.roll(answers(0.5), 100, axis=0)}
    unsure = choose_share(close, targets, MADE.data.schema, generator=np.random.default_rng(0))
    assert unsure.interval == (0.5, 1.0)


def test_the_probes_find_a_linear_truth() -> None:
    x = torch.randn(300, 4, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 10.0, 0.1, 1.0])
    y = 3 * x[:, 0] - 0.2 * x[:, 1] + 5
    assert torch.allclose(ridge(x, y)(x).squeeze(1).float(), y, atol=0.05)
    classes = (x[:, 0] + 0.1 * x[:, 1] > 0).long()
    assert (logistic(x, classes, 2)(x).argmax(dim=1) == classes).float().mean() > 0.97
    constant = torch.cat([x, torch.ones(300, 1)], dim=1)
    assert ridge(constant, y)(constant).isfinite().all()


def test_ridge_is_its_normal_equations() -> None:
    generator = torch.Generator().manual_seed(1)
    x, noise = torch.randn(40, 3, generator=generator).double(), torch.randn(40, generator=generator).double()
    probe = ridge(x, noise)
    z = (x - x.mean(0)) / x.std(0, correction=0)
    strengths = torch.logspace(-3, 3, 7, dtype=torch.float64) * torch.linalg.svdvals(z).square().mean()
    answers = [
        torch.linalg.solve(z.T @ z + s * torch.eye(3, dtype=torch.float64), z.T @ (noise - noise.mean()))
        for s in strengths
    ]
    assert min((probe.weight.squeeze(1) - a).abs().max() for a in answers) < 1e-9


def test_a_probe_reads_known_rows_only() -> None:
    schema = MADE.data.schema
    x = torch.randn(60, 3, generator=torch.Generator().manual_seed(0))
    targets = np.arange(60) % 4
    targets[40:] = -1
    assert torch.allclose(fit_probe(x, targets, schema).weight, fit_probe(x[:40], targets[:40], schema).weight)
    with pytest.raises(TrainingError, match="known target"):
        fit_probe(x, np.full(60, -1), schema)


def test_information_by_hand() -> None:
    assert mutual_information(np.array([0, 0, 1, 1]), np.array([5, 5, 9, 9])) == pytest.approx(1)
    assert mutual_information(np.array([0, 1, 0, 1]), np.array([0, 0, 1, 1])) == pytest.approx(0)
    third = mutual_information(np.array([0, 0, 1]), np.array([0, 1, 1]))
    assert third == pytest.approx(1 / 3 * math.log2(3 / 2) * 2 + 1 / 3 * math.log2(3 / 4))
    factor = np.tile([0, 1], 500)
    load = np.stack([factor * 1.0, np.random.default_rng(0).random(1000)], axis=1)
    found = activation_information(load, factor)
    assert found[0] == pytest.approx(1, abs=0.01)
    assert found[1] < 0.01
    assert selectivity(np.array([[1.0, 0.5, 0.0], [0.0, 0.5, 0.0]])).tolist() == [1.0, 0.5, 0.0]


def tensors_are_finite(tensors: list[Tensor]) -> bool:
    return all(t.isfinite().all() for t in tensors)


def test_a_row_without_a_modality_has_a_zero_vector() -> None:
    batch = batch_of(MADE.data.train, range(8))
    present = torch.tensor([True, False] * 4)
    double = Views(lambda one, _: one)(dataclasses.replace(batch, present={"one": present}), torch.Generator())
    model = s3().model.train()
    loss = Alignment(Weights(1, 1, 1, 1, 1, 1))(model, double)
    loss.backward()
    assert tensors_are_finite([loss, *(p.grad for p in model.shared.parameters() if p.grad is not None)])
