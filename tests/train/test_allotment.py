"""The allotment of tokens: what is paid forward, what the gate learns backward, and that the price keeps the budget."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from triptych.algorithm.tokens.adapt import gated
from triptych.errors import ModelError, TrainingError
from triptych.model import Multimodal, build
from triptych.model.config import GateConfig
from triptych.model.cost import fit_price_
from triptych.schema import Modality, Schema
from triptych.tokens import Batch
from triptych.train import TaskLoss, allotment
from triptych.train.allotment import Allotment
from triptych.train.noise import Ladder, ladders
from triptych.train.settling import see, settle

NAMES = ("one", "two")
SCHEMA = Schema(
    "s",
    tuple(Modality(n, "series", frames=8, channels=1, rate_hz=1, center=(0.0,), scale=(1.0,)) for n in NAMES),
    "y",
    "classification",
    "accuracy",
    classes=("no", "yes"),
)


def network(gate: GateConfig | None) -> Multimodal:
    torch.manual_seed(0)
    sizes = {"dim": 16, "depth": 2, "heads": 2, "frames_per_token": 2, "hidden": 8, "head_hidden": 8}
    plain = build("late_fusion", SCHEMA, dropout=0.0, **sizes)
    return plain if gate is None else gated(plain, gate)


def rows(seed: int, count: int = 64) -> Batch:
    """The target is the sign of the mean of one modality, whose size says which of the two it is."""
    generator = torch.Generator().manual_seed(seed)
    told, other = (torch.randn(count, 8, 1, generator=generator) for _ in range(2))
    sign = torch.randint(0, 2, (count,), generator=generator)
    speaks = torch.rand(count, generator=generator) < 0.5
    told = told * 0.3 + 3 * (2 * sign - 1).view(-1, 1, 1)
    pick = speaks.view(-1, 1, 1)
    inputs = {"one": torch.where(pick, told, other * 0.3), "two": torch.where(pick, other * 0.3, told)}
    return Batch(inputs, target=sign)


def kept(model: Multimodal, batch: Batch) -> Tensor:
    return model.gate.choose(model.gate.summaries(model.look_all(batch)))


def test_forward_the_loss_is_that_of_the_choice_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allotment, "_STILL", 0.0)
    model, batch = network(GateConfig(hidden=4)).eval(), rows(0)
    fit_price_(model, [batch], 0.5)
    expected = TaskLoss()(model, batch).item()
    loss = Allotment(0.5, progress=1.0)(model, batch)  # which moves the price
    assert loss.item() == pytest.approx(expected, abs=1e-5)
    loss.backward()
    assert model.gate.out.bias.grad.abs().sum() > 0
    assert model.gate.read["one"].weight.grad is not None


def test_a_gate_learns_which_modality_a_row_needs_and_keeps_to_its_budget() -> None:
    model, objective = network(GateConfig(shares=(0.0, 1.0), hidden=4)), Allotment(0.7)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-2)
    steps = 120
    model.train()
    for step in range(steps):
        objective.after_step(model, step / steps)
        optimizer.zero_grad()
        objective(model, rows(step)).backward()
        optimizer.step()
    model.eval()
    spent = fit_price_(model, [rows(1000)], 0.7)
    assert spent <= 0.7
    test = rows(1001, 256)
    with torch.no_grad():
        keep, right = kept(model, test), (model(test).argmax(dim=1) == test.target).float().mean()
    speaks = test.inputs["one"].abs().mean(dim=(1, 2)) > 1
    assert right > 0.95
    needed, other = torch.where(speaks, keep[:, 0], keep[:, 1]), torch.where(speaks, keep[:, 1], keep[:, 0])
    assert needed.float().mean() > other.float().mean() + 1  # of four tokens; the budget lets one modality always go on


def test_the_price_rises_above_the_budget_and_falls_below_it() -> None:
    price, objective = torch.tensor(1.0), Allotment(0.5)
    objective._follow(price, torch.tensor(1.0))
    assert price.item() == pytest.approx(math.exp(allotment._RATE))
    objective._follow(price, torch.tensor(0.0))
    assert price.item() == pytest.approx(1.0)


@torch.no_grad()
def test_the_fitted_price_is_the_lowest_that_meets_the_budget() -> None:
    model, batch = network(GateConfig(hidden=4)), rows(0)
    model.gate.out.weight.normal_(std=3.0)
    for budget in (0.3, 0.6):
        spent = fit_price_(model, [batch], budget)
        cost = model.gate.cost[model.gate.scores(model.gate.summaries(model.look_all(batch))).argmax(dim=1)].mean()
        assert cost.item() == pytest.approx(spent)
        assert spent <= budget
    with pytest.raises(ModelError, match=r"more than the budget of 0\.001"):
        fit_price_(model, [batch], 0.001)


def test_networks_without_a_gate_and_batches_without_targets_are_refused() -> None:
    with pytest.raises(TrainingError, match="a network with a gate"):
        Allotment(0.5)(network(None), rows(0))
    with pytest.raises(TrainingError, match="batches with targets"):
        Allotment(0.5)(network(GateConfig(hidden=4)), Batch(rows(0).inputs))


def test_a_gate_settles_on_what_choices_were_seen_to_change() -> None:
    model = network(GateConfig(shares=(0.0, 1.0), hidden=4))
    optimizer = torch.optim.Adam([p for n, p in model.named_parameters() if not n.startswith("gate.")], lr=2e-2)
    for step in range(60):  # whichever it is shown: the gate itself learns nothing here
        optimizer.zero_grad()
        batch = rows(step)
        looks = model.look_all(batch)
        keep = model.gate.keep[torch.randint(1, len(model.gate.keep), (len(batch),))]
        functional.cross_entropy(model.decide(model.encode_kept(looks, keep)), batch.target).backward()
        optimizer.step()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    told = settle(model, [rows(seed) for seed in range(100, 108)], Allotment(0.7))
    assert told > 0.5
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed
    assert all(name.startswith(("gate.read", "gate.mix", "gate.out", "gate.standardise")) for name in changed)
    test = rows(1001, 256)
    fit_price_(model, [rows(1000)], 0.7)
    with torch.no_grad():
        keep = kept(model, test)
    speaks = test.inputs["one"].abs().mean(dim=(1, 2)) > 1
    needed, other = torch.where(speaks, keep[:, 0], keep[:, 1]), torch.where(speaks, keep[:, 1], keep[:, 0])
    assert (needed > 0).float().mean() > 0.95
    assert (other == 0).float().mean() > 0.5


def test_a_gate_settles_where_rows_lack_modalities() -> None:
    model, objective = network(GateConfig(shares=(0.0, 0.5, 1.0), hidden=4)), Allotment(0.7)
    batch = dataclasses.replace(rows(0), present={"one": torch.arange(64) % 2 == 0})
    seen = see(model, batch, objective, torch.Generator().manual_seed(0))
    lacks = model.gate.keep[seen.choice[1]][:, 0] > 0
    assert seen.loss[1].isnan().tolist() == lacks.tolist()
    assert not seen.loss[0].isnan().any()
    nothing = dataclasses.replace(batch, present=dict.fromkeys(batch.inputs, torch.zeros(64, dtype=torch.bool)))
    assert math.isfinite(settle(model, [batch, nothing], objective))
    assert all(parameter.isfinite().all() for parameter in model.gate.parameters())
    with pytest.raises(TrainingError, match="no gate"):
        settle(network(None), [batch], objective)
    with pytest.raises(TrainingError, match="there are none"):
        settle(model, [], objective)


def test_less_is_read_of_what_turns_into_noise() -> None:
    def settled(rungs: Iterable[Ladder]) -> Multimodal:
        model = network(GateConfig(shares=(0.0, 0.5, 1.0), hidden=4))
        settle(model, [rows(seed) for seed in range(4)], Allotment(0.7), noisier=rungs)
        return model

    plain, taught = settled([]), settled(ladders(SCHEMA, [rows(seed) for seed in range(100, 104)]))
    rises = []
    for model in (plain, taught):
        steps = []
        for place, ladder in enumerate(ladders(SCHEMA, [rows(1000, 256)], seed=1)):
            seen = [model.gate.summaries(model.look_all(rung)) for rung in ladder.rungs]
            steps.append(torch.stack([model.gate.gains(one, place).mean(dim=0) for one in seen]).diff(dim=0))
        rises.append(torch.cat(steps).clamp(min=0).sum().item())
    assert rises[1] < 0.02 * rises[0]


def test_what_is_seen_of_a_choice_is_what_it_costs_alone() -> None:
    model, objective, batch = network(GateConfig(shares=(0.0, 0.5, 1.0), hidden=4)), Allotment(0.7), rows(0)
    seen = see(model, batch, objective, torch.Generator().manual_seed(0))
    assert sorted(seen.choice[0].tolist()) == [n for n, keep in enumerate(model.gate.keep) if keep.sum() > 0]
    with torch.no_grad():
        for place, number in enumerate(seen.choice[0].tolist()):
            keep = model.gate.keep[number].expand(len(batch), -1)
            output = model.decide(model.encode_kept(model.look_all(batch), keep))
            alone = objective.by_row(model.schema, output, batch, None)
            torch.testing.assert_close(seen.loss[:, place], alone)
    assert seen.loss.std(dim=1).min() > 0
