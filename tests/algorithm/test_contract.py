"""What every registered technique promises.  New ones are found here without being asked for."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from tests.algorithm.checks import COUNTED, ELSEWHERE, broken_promises
from triptych.algorithm import TECHNIQUES, Context, Needs, Range, Technique, compress, dump_recipe, load_recipe
from triptych.data.loader import batch_of
from triptych.errors import RecipeError
from triptych.model import Multimodal, build, load_model, save_model
from triptych.tokens import Batch
from triptych.train.config import TrainConfig

NETWORKS = ("late_fusion", "early_fusion", "bottleneck_fusion")
SIZES: dict[str, Any] = {
    "dim": 16,
    "depth": 2,
    "heads": 2,
    "expansion": 2.0,
    "patch": 4,
    "mels": 8,
    "max_tokens": 8,
    "frames_per_token": 2,
    "hidden": 16,
    "head_hidden": 16,
    "exits": True,
}


@dataclass(frozen=True)
class Case:
    technique: Technique
    original: Multimodal
    untouched: dict[str, torch.Tensor]
    result: Multimodal
    batch: Batch


@pytest.fixture(scope="module", params=itertools.product(sorted(TECHNIQUES), NETWORKS), ids="-".join)
def case(request: pytest.FixtureRequest, tiny_data: Any) -> Case:
    name, network = request.param
    torch.manual_seed(0)
    original = build(network, tiny_data.schema, **SIZES)
    untouched = copy.deepcopy(original.state_dict())
    technique = TECHNIQUES[name]()
    result = compress(original, [technique], tiny_data, train=TrainConfig(epochs=1, batch_size=24))
    return Case(technique, original, untouched, result, batch_of(tiny_data.validation, range(5)))


def same(one: Multimodal, other: dict[str, torch.Tensor]) -> bool:
    state = one.state_dict()
    return state.keys() == other.keys() and all(torch.equal(state[name], other[name]) for name in state)


def test_the_original_stays_bit_for_bit(case: Case) -> None:
    assert same(case.original, case.untouched)
    assert case.original.training
    assert case.original.config.recipe == ()
    assert all(parameter.grad is None and parameter.requires_grad for parameter in case.original.parameters())


def test_the_result_shares_no_memory_with_the_original(case: Case) -> None:
    mine = {tensor.data_ptr() for tensor in case.result.state_dict().values()}
    assert not mine & {tensor.data_ptr() for tensor in case.original.state_dict().values()}


def test_it_keeps_its_promises(case: Case) -> None:
    assert broken_promises(case.technique, case.original, case.result) == []


def test_the_recipe_is_recorded(case: Case) -> None:
    assert case.result.config.recipe == (repr(case.technique),)


@torch.no_grad()
def test_it_still_answers_for_every_subset_of_modalities(case: Case) -> None:
    assert not case.result.training
    names = case.result.schema.names
    for count in range(1, len(names) + 1):
        for subset in itertools.combinations(names, count):
            output = case.result(case.batch.only(*subset))
            assert output.shape == (5, 3)
            assert output.isfinite().all()


@torch.no_grad()
def test_it_survives_the_disk(case: Case, tmp_path: Path) -> None:
    loaded = load_model(save_model(case.result, tmp_path))
    assert loaded.config == case.result.config
    assert torch.equal(loaded(case.batch), case.result(case.batch))


@torch.no_grad()
def test_its_exits_still_work(case: Case) -> None:
    for name, tokens in case.result.encode_all(case.batch).items():
        assert case.result.exit(name, tokens).shape == (5, 3)


@pytest.fixture(params=sorted(TECHNIQUES))
def technique(request: pytest.FixtureRequest) -> Technique:
    return TECHNIQUES[request.param]()


def test_it_is_frozen_final_and_filed_under_its_name(technique: Technique) -> None:
    cls = type(technique)
    assert TECHNIQUES[cls.__name__] is cls
    assert cls.__final__
    assert hash(technique) == hash(cls())
    for field in dataclasses.fields(technique):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(technique, field.name, None)


def test_every_knob_is_documented(technique: Technique) -> None:
    text = "\n".join(cls.__doc__ or "" for cls in type(technique).__mro__ if issubclass(cls, Technique))
    for field in dataclasses.fields(technique):
        assert f"{field.name}:" in text, field.name


@pytest.mark.parametrize("wrong", [object(), -1, math.nan, "nonsense"], ids=["an object", "-1", "nan", "a word"])
def test_every_knob_is_checked(technique: Technique, wrong: object) -> None:
    for field in dataclasses.fields(technique):
        with pytest.raises(RecipeError, match=field.name):
            dataclasses.replace(technique, **{field.name: wrong})


def test_it_states_what_it_saves_and_needs(technique: Technique) -> None:
    assert technique.saves <= COUNTED.keys() | ELSEWHERE
    assert isinstance(technique.needs, Needs)


def test_a_search_can_try_its_space(technique: Technique) -> None:
    for knob, choices in technique.space.items():
        ends = (choices.low, choices.high) if isinstance(choices, Range) else choices
        for value in ends:
            assert getattr(dataclasses.replace(technique, **{knob: value}), knob) == value


def test_it_can_be_written_down(technique: Technique, tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text(dump_recipe([technique, technique]))
    assert load_recipe(tmp_path / "recipe.toml") == [technique, technique]


@pytest.mark.parametrize("name", sorted(n for n, cls in TECHNIQUES.items() if cls().needs is not Needs.NOTHING))
def test_without_what_it_needs_it_says_so(name: str, tiny_data: Any) -> None:
    with pytest.raises(RecipeError, match="data"):
        compress(build("late_fusion", tiny_data.schema, **SIZES), [TECHNIQUES[name]()])


@dataclass(frozen=True)
class ZeroWeights(Technique):
    """A fraud: sets weights to zero and claims that they are gone."""

    saves: ClassVar[frozenset[str]] = frozenset({"params", "size", "flops"})

    def apply(self, model: Multimodal, context: Context) -> Multimodal:
        model = copy.deepcopy(model)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.flatten()[::2] = 0
        return model


@dataclass(frozen=True)
class OnlySaysInt8(Technique):
    """A fraud: rounds the weights to a grid and goes on storing floats."""

    saves: ClassVar[frozenset[str]] = frozenset({"size"})

    def apply(self, model: Multimodal, context: Context) -> Multimodal:
        model = copy.deepcopy(model)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_((parameter * 127).round() / 127)
        return model


@pytest.mark.parametrize("fraud", [ZeroWeights(), OnlySaysInt8()])
def test_the_suite_catches_a_technique_that_only_zeroes_or_rounds(fraud: Technique, tiny_data: Any) -> None:
    original = build("late_fusion", tiny_data.schema, **SIZES)
    broken = broken_promises(fraud, original, compress(original, [fraud]))
    assert [promise.split(":")[0] for promise in broken] == sorted(fraud.saves)
