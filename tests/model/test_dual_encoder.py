"""Dual encoders: two unit vectors that know nothing of each other, and the parts that other networks have too."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.model import tiny
from triptych.algorithm.weights.trace import trace
from triptych.errors import ModelError, UnknownModality
from triptych.model import ModelConfig, Multimodal, build, load_model, save_model
from triptych.schema import Schema
from triptych.tokens import Tokens

PAIR = ("words", "picture")


def schema(*pair: str) -> Schema:
    names = pair or PAIR
    chosen = tuple(m for m in tiny.MODALITIES if m.name in names)
    return Schema("pairs", chosen, "", "retrieval", "recall_at_1", pair=names)


def network(*pair: str, **sizes: Any) -> Multimodal:
    torch.manual_seed(0)
    model = build("dual_encoder", schema(*pair), **{**tiny.SIZES, "embedding": 12, **sizes})
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return model.eval()


@pytest.mark.parametrize("other", [name for name in tiny.NAMES if name != "words"])
@torch.no_grad()
def test_each_side_is_a_unit_vector_of_its_own_input(other: str) -> None:
    model = network("words", other)
    batch = tiny.batch(4, "words", other)
    output = model(batch)
    assert output.shape == (4, 24) == (4, model.outputs)
    sides = output.unflatten(1, (2, 12))
    torch.testing.assert_close(sides.norm(dim=-1), torch.ones(4, 2))
    changed = tiny.batch(4, "words", other, seed=1)
    mixed = model(dataclasses.replace(batch, inputs={**batch.inputs, other: changed.inputs[other]}))
    assert torch.equal(mixed[:, :12], output[:, :12])
    assert not torch.equal(mixed[:, 12:], output[:, 12:])


@torch.no_grad()
def test_one_side_alone_is_half_of_the_answer() -> None:
    model, batch = network(), tiny.batch(3, *PAIR)
    output = model(batch)
    streams = model.encode_all(batch)
    assert model.alone == model.schema.names
    for number, name in enumerate(PAIR):
        half = output[:, 12 * number : 12 * number + 12]
        torch.testing.assert_close(model.exit(name, streams[name]), half)
        alone = model(batch.only(name))
        torch.testing.assert_close(alone[:, 12 * number : 12 * number + 12], half)
        assert not alone[:, 12 * (1 - number) : 12 * (1 - number) + 12].any()
    with pytest.raises(ModelError, match="no exit head for 'sound'"):
        model.exit("sound", streams["words"])
    with pytest.raises(UnknownModality):
        model(tiny.batch(2, "sound"))


@torch.no_grad()
def test_what_is_absent_or_padding_changes_nothing_and_gives_zeros() -> None:
    model, batch = network(), tiny.batch(4, *PAIR)
    here = torch.tensor([True, False, True, True])
    output = model(dataclasses.replace(batch, present={"picture": here}))
    assert not output[1, 12:].any()
    torch.testing.assert_close(output[here], model(batch)[here])
    tokens = model.encode("words", batch.inputs["words"])
    noise = torch.where(tokens.real().unsqueeze(-1), tokens.x, torch.randn_like(tokens.x))
    torch.testing.assert_close(
        model.exit("words", tokens.with_x(noise)), model.exit("words", tokens), rtol=1e-5, atol=1e-6
    )
    torch.testing.assert_close(
        model.exit("words", Tokens(tokens.x[:, :6], tokens.real()[:, :6])),
        model.exit("words", Tokens(tokens.x, tokens.real() & (torch.arange(12) < 6))),
    )


def test_retrieval_needs_a_network_without_fusion_and_nothing_else_does() -> None:
    with pytest.raises(ModelError, match="retrieval needs a network without fusion"):
        build("late_fusion", schema(), **tiny.SIZES)
    with pytest.raises(ModelError, match="dual_encoder"):
        build("dual_encoder", tiny.schema(), **tiny.SIZES)


@torch.no_grad()
def test_it_survives_json_and_the_disk(tmp_path: Path) -> None:
    model, batch = network(), tiny.batch(3, *PAIR)
    assert model.config.fusion is None
    assert ModelConfig.from_dict(json.loads(json.dumps(model.config.to_dict()))) == model.config
    assert torch.equal(load_model(save_model(model, tmp_path))(batch), model(batch))


def test_its_costs_are_told_by_part() -> None:
    model = network()
    params = model.parameters_by_part()
    assert sum(params[part] for part in ("words.encode", "picture.encode", "decide")) == sum(
        p.numel() for p in model.parameters()
    )
    assert params["decide"] == params["words.exit"] + params["picture.exit"] + 2  # the temperature and the bias
    assert model.flops()["decide"] > 0


def test_pruning_finds_the_parts_of_both_heads() -> None:
    model = network()
    hidden = [group for group in trace(model, "hidden") if group.path == ("head_hidden",)]
    assert [group.owner for group in hidden] == ["head.sides.words", "head.sides.picture"]
    width = {group.path: {cut.name for cut in group.cuts} for group in trace(model, "width")}
    assert "head.sides.picture.project.weight" in width["encoders", "picture", "dim"]
    assert not any("words" in name for name in width["encoders", "picture", "dim"])


def test_outputs_and_exits_of_other_networks_are_as_before() -> None:
    assert tiny.network().outputs == 3
    assert tiny.network().alone == ()
    assert tiny.network(exits=True).alone == tiny.NAMES
