"""Teaching: students are smaller and fresh, and learn from the original or from the task."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from tests.model import tiny
from triptych.algorithm import Distill, Finetune, Int8, PruneWidth, Student, compress
from triptych.algorithm.teaching import finetune
from triptych.algorithm.technique import Context
from triptych.data.loader import batch_of
from triptych.errors import ModelError, RecipeError
from triptych.model import Multimodal, build
from triptych.train.config import TrainConfig
from triptych.train.losses import Distillation
from triptych.train.progress import TrainProgress

QUICK = TrainConfig(epochs=2, batch_size=24)


def teacher(data: Any) -> Multimodal:
    torch.manual_seed(0)
    return build("late_fusion", data.schema, **tiny.SIZES)


def parameters(model: Multimodal) -> int:
    return sum(p.numel() for p in model.parameters())


def test_a_student_keeps_the_shape_at_a_fraction() -> None:
    original = tiny.network("bottleneck_fusion", exits=True)
    student = compress(original, [Student(fraction=0.5)])
    config = student.config
    assert {e.dim for e in config.encoders.values()} == {8}
    assert [len(e.blocks) for n, e in config.encoders.items() if n != "facts"] == [1] * 4
    assert (config.fusion.name, config.fusion.dim, len(config.fusion.blocks)) == ("bottleneck", 8, 1)
    assert config.exits
    assert parameters(student) < 0.4 * parameters(original)


def test_a_student_can_be_another_network() -> None:
    sizes = {**tiny.SIZES, "dim": 8, "heads": 1}
    student = compress(tiny.network(), [Student("early_fusion", sizes=sizes, modalities={"words": {"depth": 1}})])
    assert student.config.fusion.name == "early"
    assert len(student.config.encoders["words"].blocks) == 1
    assert len(student.config.encoders["sound"].blocks) == 2


def test_students_follow_the_seed() -> None:
    original = tiny.network("late_fusion", "facts")
    one, again, other = (compress(original, [Student()], seed=seed).head.up.weight for seed in (0, 0, 1))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_a_student_must_be_smaller() -> None:
    with pytest.raises(RecipeError, match="choose smaller sizes"):
        compress(tiny.network(), [Student("late_fusion", sizes={"dim": 256})])
    with pytest.raises(ModelError, match="unknown sizes"):
        compress(tiny.network(), [Student("late_fusion", sizes={"colour": 3})])
    with pytest.raises(RecipeError, match="network"):
        Student("middle_fusion")


def test_distilling_asks_the_original_and_finetuning_does_not(tiny_data: Any) -> None:
    original = teacher(tiny_data)
    context = Context(original, tiny_data)
    objective = Distill(alpha=0.7, temperature=3.0, feature_weight=2.0).objective(context)
    assert isinstance(objective, Distillation)
    assert (objective.alpha, objective.temperature, objective.feature_weight) == (0.7, 3.0, 2.0)
    assert torch.equal(objective.teachers[0].head.up.weight, original.head.up.weight)
    assert Finetune().objective(context) is None


@pytest.mark.parametrize(("asking", "left"), [(20.0, 70.0), (80.0, 45.0)])
def test_asking_the_teachers_counts_against_the_seconds(
    tiny_data: Any, monkeypatch: pytest.MonkeyPatch, asking: float, left: float
) -> None:
    clock = iter([100.0, 100.0 + asking])
    monkeypatch.setattr(finetune.time, "monotonic", lambda: next(clock))
    given: list[TrainConfig] = []
    monkeypatch.setattr(finetune, "fit", lambda model, _data, config, **_: given.append(config) or model)
    original = teacher(tiny_data)
    context = Context(original, tiny_data, train=dataclasses.replace(QUICK, max_seconds=90.0))
    Finetune().apply(original, context)
    assert given[0].max_seconds == left


@torch.no_grad()
def test_a_student_comes_closer_to_its_teacher(tiny_data: Any) -> None:
    original = teacher(tiny_data).eval()
    original.head.out.weight.mul_(20)
    batch = batch_of(tiny_data.train, range(24))
    distances = []
    for epochs in (0, 20):
        recipe = [Student(), Distill(alpha=1.0, epochs=epochs, lr=3e-3)] if epochs else [Student()]
        with torch.enable_grad():
            student = compress(original, recipe, tiny_data, train=TrainConfig(batch_size=12, patience=None))
        distances.append(float((student(batch).softmax(dim=1) - original(batch).softmax(dim=1)).square().mean()))
    assert distances[1] < 0.8 * distances[0]


def test_knobs_override_the_training_options(tiny_data: Any) -> None:
    seen: list[TrainProgress] = []
    compress(teacher(tiny_data), [Finetune(epochs=1, lr=0.5e-3)], tiny_data, progress=seen.append, train=QUICK)
    assert {event.epoch for event in seen} == {0} or max(event.epoch for event in seen) <= 1
    assert max(event.lr for event in seen) <= 0.5e-3


def test_training_repeats_bit_for_bit_and_follows_the_seed(tiny_data: Any) -> None:
    original = teacher(tiny_data)
    recipe = [PruneWidth(), Finetune(epochs=1)]
    one, again, other = (compress(original, recipe, tiny_data, seed=s, train=QUICK).state_dict() for s in (0, 0, 1))
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)


def test_an_integer_network_learns_on_its_grid(tiny_data: Any) -> None:
    small = compress(teacher(tiny_data), [Int8(), Distill(epochs=1)], tiny_data, train=QUICK)
    assert small.config.precision == "int8"
    with torch.no_grad():
        assert small(batch_of(tiny_data.validation, range(4))).isfinite().all()


def test_fellow_teachers_vote_with_the_original(tiny_data: Any) -> None:
    original = teacher(tiny_data)
    torch.manual_seed(1)
    fellow = build("late_fusion", tiny_data.schema, **tiny.SIZES)
    context = Context(original, tiny_data, teachers=(fellow,))
    asked = Distill(ask="always").objective(context)
    remembered = Distill(ask="once").objective(context)
    assert isinstance(asked, Distillation)
    assert isinstance(remembered, Distillation)
    batch = batch_of(tiny_data.train, range(8))
    answers = asked.ask(batch)[0]
    assert answers.shape[0] == 2
    assert not torch.allclose(answers[0], answers[1], atol=1e-3)
    torch.testing.assert_close(remembered.recall(original.schema, batch), answers, atol=1e-4, rtol=1e-4)
