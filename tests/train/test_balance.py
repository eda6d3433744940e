"""Balances: their formulas by hand, and that each trains, resumes exactly and leaves other losses alone."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from triptych.data.dataset import Dataset
from triptych.data.loader import batches
from triptych.errors import RecipeError
from triptych.model import Multimodal, build
from triptych.model.auxiliary import take_auxiliary
from triptych.tokens import Batch, Tokens
from triptych.train import Distillation, TaskLoss, fit, fit_with_history
from triptych.train.balance import BALANCES, Adaptive, Blending, OnTheFly, Prototypes, make_balance
from triptych.train.balance.adaptive import responses
from triptych.train.balance.balance import alone, others, row_losses
from triptych.train.balance.blending import blend
from triptych.train.balance.prototypes import class_of, lag
from triptych.train.progress import TrainProgress

from .small import SIZES, config, network, same

PLAIN = TaskLoss()


@pytest.fixture(scope="module")
def three(tiny_data) -> Dataset:
    return tiny_data.only("text", "series", "table")


@pytest.fixture(scope="module")
def two(tiny_data) -> Dataset:
    return tiny_data.only("series", "table")


@pytest.fixture
def batch(three) -> Batch:
    return next(iter(batches(three.train, three.schema, batch_size=16, seed=0)))


def told(balance, *means: float) -> None:
    """As if a batch of ten rows had told these means."""
    balance.tally.copy_(torch.stack([10 * torch.tensor(means), torch.full((len(means),), 10.0)]))


def test_the_mean_of_the_others_by_hand() -> None:
    assert others(torch.tensor([0.6, 0.3, 0.2])).tolist() == pytest.approx([0.25, 0.4, 0.45])
    unknown = others(torch.tensor([0.6, math.nan]))
    assert unknown[0].isnan()
    assert unknown[1] == pytest.approx(0.6)


def test_on_the_fly_coefficients_by_hand(two, three) -> None:
    pair = OnTheFly(network(two), 1.0)
    told(pair, 0.8, 0.4)  # ratios 2 and 1/2, alpha 1/2
    assert pair.coefficients().tolist() == pytest.approx([1 - math.tanh(1.0), 1.0])
    triple = OnTheFly(network(three), 2.0)
    told(triple, 0.6, 0.3, 0.3)  # ratios 2, 2/3, 2/3
    assert triple.coefficients().tolist() == pytest.approx([1 - math.tanh(2.0), 1.0, 1.0])
    told(triple, 0.6, math.nan, math.nan)
    assert triple.coefficients().tolist() == [1.0, 1.0, 1.0]


def test_scores_are_the_chance_of_the_right_class_over_the_rows_that_hold_the_modality(three) -> None:
    model = network(three)
    balance = OnTheFly(model, 1.0)
    answer = torch.tensor([[0.7, 0.2, 0.1], [0.25, 0.5, 0.25], [0.1, 0.1, 0.8]]).log()
    inputs = {"text": torch.ones(3, 2, dtype=torch.int64)}
    batch = Batch(inputs, {"text": torch.tensor([True, True, False])}, torch.tensor([0, 1, 2]))
    balance.note_(model, batch, {"text": answer})
    assert balance.tally[:, 0].tolist() == pytest.approx([0.7 + 0.5, 2.0])
    assert balance.tally[:, 1:].tolist() == [[0, 0], [0, 0]]
    unknown = Batch(inputs, {}, torch.tensor([0, -1, 2]))
    balance.note_(model, unknown, {"text": answer})
    assert balance.tally[:, 0].tolist() == pytest.approx([0.7 + 0.8, 2.0])
    adaptive = Adaptive(model, 1.0)
    adaptive.note_(model, batch, {"text": answer})
    assert adaptive.tally[0, 0].item() == pytest.approx(math.log(0.7) + math.log(0.5))
    cost, _ = row_losses(model, batch, "text", answer)
    assert cost[0].item() == pytest.approx(-math.log(0.7))


def with_gradients(model: Multimodal, value: Tensor | None = None) -> Multimodal:
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter) if value is None else torch.randn_like(parameter)
    return model


def test_only_the_encoder_of_the_surer_modality_is_slowed_down(two) -> None:
    model = with_gradients(network(two))
    balance = OnTheFly(model, 1.0)
    told(balance, 0.8, 0.4)
    balance.modulate_(model, torch.Generator())
    for name, parameter in model.named_parameters():  # gradients without spread get no noise
        expected = 1 - math.tanh(1.0) if name.startswith("encoders.series.") else 1.0
        assert torch.allclose(parameter.grad, torch.full_like(parameter, expected))


def test_the_noise_is_as_wide_as_the_gradient_and_the_same_for_the_same_generator(two) -> None:
    changed = []
    for _ in range(2):
        torch.manual_seed(3)
        model = with_gradients(network(two), torch.ones(()))
        before = {name: p.grad.clone() for name, p in model.named_parameters()}
        balance = OnTheFly(model, 0.0)  # coefficients of one
        told(balance, 0.8, 0.4)
        balance.modulate_(model, torch.Generator().manual_seed(1))
        changed.append({name: p.grad - before[name] for name, p in model.named_parameters()})
    noise = changed[0]
    assert all(noise[name].equal(changed[1][name]) for name in noise)
    matrices = torch.cat([n.flatten() for name, n in noise.items() if name.startswith("encoders.") and n.ndim > 1])
    assert matrices.std().item() == pytest.approx(1.0, abs=0.1)
    assert all((n == 0).all() for name, n in noise.items() if n.ndim < 2 or not name.startswith("encoders."))


def test_adaptive_coefficients_by_hand(two) -> None:
    balance = Adaptive(network(two), 1.0)
    told(balance, -0.5, -1.5)  # ratios e and 1/e, which are their own means at first
    assert balance.ratios().tolist() == pytest.approx([math.e, 1 / math.e])
    assert balance.advance_().tolist() == pytest.approx([1.0, 1.0])
    told(balance, -1.0, -1.0)  # ratios one; means (e + 1) / 2 and (1/e + 1) / 2
    expected = [math.exp(-(1 - (math.e + 1) / 2)), math.exp(-(1 - (1 / math.e + 1) / 2))]
    assert balance.advance_().tolist() == pytest.approx(expected)
    told(balance, 0.0, -9.0)  # held within a factor of e
    assert balance.advance_()[0].item() == pytest.approx(1 / math.e)
    told(balance, -1.0, math.nan)
    steps = balance.steps.clone()
    assert balance.advance_().tolist() == [1.0, 1.0]
    assert balance.steps.equal(steps)


@torch.no_grad()
def test_the_responses_of_two_modalities_add_up_to_the_output(two, tiny_regression_data) -> None:
    for data in (two, tiny_regression_data.only("text", "table")):
        model = network(data).eval()
        some = next(iter(batches(data.train, data.schema, batch_size=8, seed=0)))
        streams = model.encode_all(some)
        output = model.decide(streams)
        found = responses(model, streams, output)
        center = data.schema.center if data.schema.task == "regression" else 0.0
        assert torch.allclose(sum(one - center for one in found.values()) + center, output, atol=1e-5)
        (name, tokens) = next(iter(streams.items()))
        only = responses(model, {name: tokens}, model.decide({name: tokens}))
        assert torch.allclose(only[name], model.decide({name: tokens}), atol=1e-5)


def test_the_lag_of_a_modality_by_hand() -> None:
    assert lag(torch.tensor([0.6, 0.4])).tolist() == pytest.approx([0.0, 0.5])
    assert lag(torch.tensor([0.9, 0.1])).tolist() == pytest.approx([0.0, 1.0])
    assert lag(torch.tensor([0.5, math.nan])).tolist() == [0.0, 0.0]


def test_prototypes_move_and_cost_by_hand(two) -> None:
    balance = Prototypes(network(two, dim=2), 1.0)
    index = torch.tensor([0, 0, 1])
    vectors = torch.tensor([[1.0, 0.0], [3.0, 0.0], [2.0, 4.0]])
    assert balance._costs("series", vectors, index).shape == (0,)
    balance._move_("series", vectors, index)
    prototypes, seen = balance._of("series")
    assert prototypes.tolist() == [[2, 0], [2, 4], [0, 0]]
    assert seen.tolist() == [True, True, False]
    cost = balance._costs("series", torch.tensor([[2.0, 1.0], [9.0, 9.0]]), torch.tensor([0, 2]))
    assert cost.tolist() == pytest.approx([math.log(1 + math.exp(-2.0))], abs=1e-4)  # 1 from its own, 3 from the other
    balance._move_("series", torch.tensor([[12.0, 0.0]]), torch.tensor([0]))
    assert balance._of("series")[0].tolist() == [[pytest.approx(3.0), 0], [2, 4], [0, 0]]


def test_a_modality_that_lags_pays_for_its_prototypes(two) -> None:
    model = network(two, dim=2)
    balance = Prototypes(model, 2.0)
    target = torch.tensor([0, 1])
    near, far = torch.tensor([[[0.0, 0.0]], [[0.0, 9.0]]]), torch.tensor([[[0.0, 0.0]], [[0.0, 0.5]]])
    streams = {"series": Tokens(near), "table": Tokens(far)}
    batch = Batch({"series": near, "table": far}, {}, target)
    first = balance.loss(PLAIN, model, batch=batch, streams=streams, output=torch.zeros(2, 3), loss=torch.tensor(5.0))
    assert first.item() == 5.0  # no prototypes yet
    second = balance.loss(PLAIN, model, batch=batch, streams=streams, output=torch.zeros(2, 3), loss=torch.tensor(5.0))
    sure, unsure = 1 / (1 + math.exp(-9.0)), 1 / (1 + math.exp(-0.5))
    assert second.item() == pytest.approx(5 + 2 * (sure / unsure - 1) * -math.log(unsure), abs=1e-4)


def test_values_are_taken_for_five_classes(tiny_regression_data) -> None:
    schema = tiny_regression_data.schema
    steps = torch.tensor([-9.0, -1.0, 0.2, 1.0, 9.0, math.nan])
    assert class_of(schema, schema.center + schema.scale * steps).tolist() == [0, 1, 2, 3, 4, -1]


def test_blending_weights_by_hand() -> None:
    before = torch.tensor([[1.0, 1.0], [2.0, 2.0]])  # training, validation
    now = torch.tensor([[0.5, 0.8], [1.75, 1.9]])  # gains 0.25 and 0.1; gaps grew by 0.25 and 0.1
    assert blend(before, now).tolist() == pytest.approx([4 / 14, 10 / 14], rel=1e-4)
    assert blend(before, now, strength=0.0).tolist() == [0.5, 0.5]
    assert blend(torch.full((2, 2), math.nan), now).isnan().all()


def test_blending_weighs_every_answers_loss(three, batch) -> None:
    model = network(three).eval()
    balance = Blending(model, 1.0)
    balance.weights.copy_(torch.tensor([0.1, 0.2, 0.3, 0.4]))
    streams = model.encode_all(batch)
    output = model.decide(streams)
    expected = 0.4 * PLAIN.rows(model.schema, output, batch.target)
    for weight, (name, answer) in zip((0.1, 0.2, 0.3), alone(model, streams).items(), strict=True):
        expected = expected + weight * PLAIN.rows(model.schema, answer, batch.target, present=batch.present.get(name))
    plain = PLAIN.rows(model.schema, output, batch.target)
    loss = balance.loss(PLAIN, model, batch=batch, streams=streams, output=output, loss=plain)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert balance.paid[1, -1] == len(batch)


def test_blending_needs_two_validations_to_learn_weights(three) -> None:
    model = network(three).eval()
    balance = Blending(model, 1.0)
    wanted = list(batches(three.validation, three.schema, batch_size=8, seed=0))
    weights = []
    for scale in (1.0, 0.5, 0.3):
        balance.paid.copy_(torch.tensor([[scale, 2 * scale, 3 * scale, scale], [1.0] * 4]))
        with torch.no_grad():
            model.head.out.weight.mul_(0.7)
        balance.validated_(model, wanted)
        weights.append(balance.weights.clone())
    assert weights[0].tolist() == [0.25] * 4
    assert weights[1].sum().item() == pytest.approx(1.0)
    assert not weights[1].equal(weights[0])
    assert balance.paid.sum() == 0


def test_answers_of_single_modalities_come_from_exits_where_there_are_any(three, batch) -> None:
    for exits in (False, True):
        model = network(three, exits=exits).eval()
        streams = model.encode_all(batch)
        for name, answer in alone(model, streams).items():
            expected = model.exit(name, streams[name]) if exits else model(batch.only(name))
            assert torch.allclose(answer, expected, atol=1e-6)


@pytest.mark.parametrize("name", sorted(BALANCES))
@pytest.mark.parametrize("task", ["classification", "regression"])
def test_every_balance_trains_and_changes_something(name: str, task: str, three, tiny_regression_data) -> None:
    data = three if task == "classification" else tiny_regression_data
    options = {"epochs": 4, "modality_dropout": 0.2, "lr": 5e-3}
    plain = fit(network(data), data, config(**options))
    balanced = fit_with_history(network(data), data, config(balance=name, **options))
    assert not same(plain, balanced.model)
    assert same(balanced.model, fit(network(data), data, config(balance=name, **options)))
    assert balanced.history[-1]["validation_loss"] < balanced.history[0]["validation_loss"]


class StoppedError(Exception):
    pass


@pytest.mark.parametrize("name", sorted(BALANCES))
def test_a_resumed_run_remembers_the_balance(name: str, three, tmp_path: Path) -> None:
    def stop(event: TrainProgress) -> None:
        if event.step == 8:
            raise StoppedError

    options = config(epochs=4, checkpoint_every_s=0.0, balance=name)
    whole = fit_with_history(network(three), three, options)
    with pytest.raises(StoppedError):
        fit(network(three), three, options, folder=tmp_path, progress=stop)
    parts = fit_with_history(network(three, seed=9), three, options, folder=tmp_path, resume=True)
    assert same(whole.model, parts.model)


@pytest.mark.parametrize("name", sorted(BALANCES))
def test_looking_at_single_modalities_leaves_the_losses_of_parts_alone(name: str, three, batch) -> None:
    torch.manual_seed(0)
    model = build("product_of_experts_fusion", three.schema, **SIZES, dropout=0.0).train()
    streams = model.encode_all(batch)
    output = model.decide(streams)
    (before,) = take_auxiliary(model)
    output = model.decide(streams)
    balance = make_balance(config(balance=name), model)
    balance.loss(PLAIN, model, batch=batch, streams=streams, output=output, loss=output.sum())
    (after,) = take_auxiliary(model)
    assert after.item() == pytest.approx(before.item())


def test_what_cannot_be_balanced_is_refused(three, tiny_pairs_data, pairs_model) -> None:
    with pytest.raises(RecipeError, match=r"must be one of \['adaptive'"):
        fit(network(three), three, config(balance="fair"))
    with pytest.raises(RecipeError, match="several modalities of one answer"):
        fit(pairs_model, tiny_pairs_data, config(balance="adaptive"))
    single = three.only("text")
    with pytest.raises(RecipeError, match="several modalities"):
        fit(network(single), single, config(balance="adaptive"))
    with pytest.raises(RecipeError, match="which this objective leaves out"):
        fit(network(three), three, config(balance="adaptive"), objective=TaskLoss())
    taught = fit(network(three), three, config(balance="adaptive", epochs=1), objective=Distillation(network(three)))
    assert not same(taught, network(three))
    with pytest.raises(RecipeError, match="balance_strength must not be negative"):
        config(balance_strength=-1.0)
    blind = Dataset(three.schema, {"train": three.train}, three.about)
    with pytest.raises(RecipeError, match="weighs by the validation rows"):
        fit(network(blind), blind, config(balance="blending"))


def test_processes_agree_on_the_tally(two) -> None:
    balance = OnTheFly(network(two), 1.0)
    told(balance, 0.8, 0.4)
    other = torch.tensor([[2.0, 8.0], [10.0, 10.0]])  # another process's ten rows, with means 0.2 and 0.8
    balance.agree_(lambda tally: (tally + other) / 2)
    assert balance.means().tolist() == pytest.approx([0.5, 0.6])
