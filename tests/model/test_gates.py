"""Gates: what they may choose, that padding and missing modalities do not matter, and what is executed in the end."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor

from tests.model import tiny
from triptych.algorithm.rebuild import fresh_model
from triptych.errors import ModelError
from triptych.model import Multimodal, load_model, save_model
from triptych.model.config import GateConfig, ModelConfig
from triptych.model.cost import count_choices_
from triptych.model.gates import GATES
from triptych.model.operations import counted
from triptych.select import spread
from triptych.system.bundle import graphs
from triptych.tokens import Batch, Tokens

NAMES = ("picture", "words", "motion")
FUSIONS = ("late_fusion", "early_fusion", "bottleneck_fusion")
ROWS = 12
BATCH = tiny.batch(ROWS, *NAMES)


def gated(
    name: str = "late_fusion", *, gate: str = "adaptive", strength: float = 3.0, connector: str = "", **fields: Any
) -> Multimodal:
    """A network with a gate that chooses differently from row to row; with strength 0 a fresh one."""
    plain = tiny.network(name, *NAMES, connector=connector)
    config = dataclasses.replace(plain.config, gate=GateConfig(gate, **{"rank": True, **fields}))
    model = fresh_model(config, plain)
    model.load_state_dict(plain.state_dict(), strict=False)
    count_choices_(model)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.gate.parameters():
            parameter.add_(torch.randn_like(parameter) * strength)
        seen = model.gate.summaries(model.look_all(BATCH))
        model.gate.train()
        for _ in range(100):  # until the running mean and variance are those of the rows
            model.gate.worth(seen)
    return model.eval()


def kept(model: Multimodal, batch: Batch) -> Tensor:
    return model.gate.choose(model.gate.summaries(model.look_all(batch)))


def row(batch: Batch, number: int) -> Batch:
    return Batch({name: x[number : number + 1] for name, x in batch.inputs.items()})


@pytest.mark.parametrize("gate", sorted(GATES))
@torch.no_grad()
def test_a_fresh_gate_that_may_keep_everything_changes_nothing(gate: str) -> None:
    model = gated(gate=gate, strength=0.0)
    assert kept(model, BATCH).unique(dim=0).tolist() == [[16, 12, 10]]
    assert torch.allclose(model(BATCH), tiny.network("late_fusion", *NAMES)(BATCH), atol=1e-5)


@pytest.mark.parametrize("gate", sorted(GATES))
@torch.no_grad()
def test_rows_choose_for_themselves(gate: str) -> None:
    model = gated(gate=gate)
    assert len(kept(model, BATCH).unique(dim=0)) > 2
    alone = torch.cat([model(row(BATCH, i)) for i in range(ROWS)])
    assert torch.allclose(alone, model(BATCH), atol=1e-5)


@torch.no_grad()
def test_a_gate_of_one_share_keeps_it_of_every_modality_that_is_there() -> None:
    model = gated(shares=(0.5,))
    assert kept(model, BATCH).unique(dim=0).tolist() == [[8, 6, 5]]
    assert model.gate.cost[0] < model.gate.cost[1] < 1.0


@pytest.mark.parametrize("gate", sorted(GATES))
@pytest.mark.parametrize("cap", [0.4, 0.7])
@torch.no_grad()
def test_no_row_costs_more_than_the_cap(gate: str, cap: float) -> None:
    model = gated(gate=gate, cap=cap)
    chosen = kept(model, BATCH)
    choices = model.gate.keep.tolist()
    assert all(model.gate.cost[choices.index(keep)] <= cap for keep in chosen.tolist())
    assert (chosen.sum(dim=1) > 0).all()


@pytest.mark.parametrize("gate", sorted(GATES))
@torch.no_grad()
def test_a_higher_price_buys_less(gate: str) -> None:
    model = gated(gate=gate)
    spent = []
    for price in (0.0, 10.0, 100.0, 1000.0):
        model.gate.price.fill_(price)
        spent.append(model.gate.cost[model.gate.scores(model.gate.summaries(model.look_all(BATCH))).argmax(1)].mean())
    assert spent == sorted(spent, reverse=True)
    assert spent[-1] < spent[0]


@pytest.mark.parametrize("gate", sorted(GATES))
@pytest.mark.parametrize("name", FUSIONS)
@torch.no_grad()
def test_a_missing_modality_gets_nothing_and_counts_as_left_out(name: str, gate: str) -> None:
    model = gated(name, gate=gate)
    given = BATCH.only("words", "motion")
    left_out = model(given)
    absent = {"picture": torch.zeros(ROWS, dtype=torch.bool)}
    assert torch.allclose(model(Batch(BATCH.inputs, absent)), left_out, atol=1e-5)
    assert kept(model, given)[:, 0].sum() == 0
    assert (kept(model, given).sum(dim=1) > 0).all()
    for one in NAMES:
        assert model(BATCH.only(one)).isfinite().all()
    assert model(Batch(BATCH.inputs, {n: torch.zeros(ROWS, dtype=torch.bool) for n in NAMES})).isfinite().all()


@pytest.mark.parametrize("gate", sorted(GATES))
@torch.no_grad()
def test_padding_changes_neither_the_choice_nor_the_answer(gate: str) -> None:
    model = gated(gate=gate)
    longer = BATCH.inputs["words"][:, :6].masked_fill(torch.arange(6) >= 5, 0)
    short, long = ({**BATCH.inputs, "words": ids} for ids in (longer[:, :5], longer))
    assert kept(model, Batch(short)).equal(kept(model, Batch(long)))
    assert torch.allclose(model(Batch(short)), model(Batch(long)), atol=1e-5)
    tokens = Tokens(torch.randn(2, 10, 16), torch.arange(10).expand(2, -1) < 6)
    other = tokens.with_x(tokens.x.masked_fill(~tokens.mask.unsqueeze(-1), 9.0))
    one, two = model.gate.look("motion", tokens), model.gate.look("motion", other)
    assert torch.allclose(one.summary, two.summary, atol=1e-5)
    assert torch.allclose(one.score[:, :6], two.score[:, :6], atol=1e-5)


@torch.no_grad()
def test_the_cost_of_a_choice_is_what_its_tokens_cost() -> None:
    model = gated("early_fusion")
    choice, whole = [4, 3, 0], count_choices_(model)
    cost = model.gate.cost[model.gate.keep.tolist().index(choice)]
    batch = row(BATCH, 0)
    looks, looking = counted(lambda: model.look_all(batch))
    _, choosing = counted(lambda: kept(model, batch))
    streams, running = counted(lambda: model.encode_kept(looks, torch.tensor([choice])))
    nothing, spared = counted(lambda: model.go_on("motion", looks["motion"].tokens.take(torch.tensor([[0]]))))
    _, deciding = counted(lambda: model.decide(streams))
    assert nothing.x.shape[1] == 1
    assert cost * whole == pytest.approx(choosing + running - spared + deciding, rel=1e-4)
    assert looking < choosing
    assert 1 < model.gate.cost.max() < 1.3
    assert model.gate.cost[model.gate.keep.sum(dim=1).argmax()] == model.gate.cost.max()


@torch.no_grad()
def test_what_experts_compute_counts_in_the_cost_of_a_choice() -> None:
    plain = tiny.network("late_fusion", *NAMES, channel="experts", experts=2, active=1)
    model = fresh_model(dataclasses.replace(plain.config, gate=GateConfig("adaptive")), plain)
    assert count_choices_(model) == sum(plain.flops().values())


def test_an_even_spread_by_hand() -> None:
    assert spread(4).tolist() == [1.0, 0.5, 0.75, 0.25]
    assert spread(8).topk(4).indices.sort().values.tolist() == [0, 2, 4, 6]
    assert spread(1).tolist() == [1.0]


def test_a_gate_is_saved_with_its_price(tmp_path: Any) -> None:
    model = gated(shares=(0, 0.5, 1), cap=0.8)
    model.gate.price.fill_(0.3)
    again = load_model(save_model(model, tmp_path))
    assert again.config == model.config == ModelConfig.from_dict(model.config.to_dict())
    assert again.gate.price == model.gate.price
    with torch.no_grad():
        assert torch.equal(again(BATCH), model(BATCH))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gate": GateConfig("wise")}, "unknown gate 'wise'"),
        ({"mixer": "recurrent"}, "a gate needs a fusion, and encoders"),
    ],
)
def test_what_cannot_have_a_gate_is_refused(change: dict[str, Any], message: str) -> None:
    mixer = change.pop("mixer", "attention")
    config = tiny.network("late_fusion", *NAMES, mixer=mixer).config
    with pytest.raises(ModelError, match=message):
        Multimodal(dataclasses.replace(config, **{"gate": GateConfig(), **change}), tiny.schema(*NAMES))


@pytest.mark.parametrize("fields", [{"shares": (0.0,)}, {"shares": (2.0,)}, {"cap": 2.0}])
def test_impossible_shares_and_caps_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match="must be in"):
        GateConfig(**fields)


def test_too_many_choices_are_refused() -> None:
    with pytest.raises(ModelError, match="give the gate fewer shares"):
        gated(shares=tuple(n / 20 for n in range(21)))


def session(graph: bytes, profile: str = "") -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    options.enable_profiling, options.profile_file_prefix = bool(profile), profile
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize(
    ("name", "fields"),
    [*((name, {}) for name in FUSIONS), ("late_fusion", {"rank": False, "connector": "concat_pool"})],
)
@torch.no_grad()
def test_the_fused_graph_answers_and_chooses_as_the_network(name: str, fields: dict[str, Any]) -> None:
    model = gated(name, **fields)
    run = session(graphs.export_fused(model))
    chosen = kept(model, BATCH)
    for number in range(ROWS):
        feed = {n: x.numpy() for n, x in row(BATCH, number).inputs.items()}
        output, keep = run.run(["output", "keep"], feed)
        assert keep[0].tolist() == chosen[number].tolist()
        assert np.allclose(output, model(row(BATCH, number)), atol=1e-4)
