import dataclasses
import math

import numpy as np
import pytest
import torch

from triptych.data.loader import batch_of
from triptych.errors import RecipeError, TrainingError
from triptych.schema import Modality, Schema
from triptych.tokens import Batch, Mix
from triptych.train.config import TrainConfig
from triptych.train.losses import Distillation, TaskLoss, balanced_weights, similarity_loss, soft_loss, task_loss

from .small import network

TWO = Schema("s", (Modality("t", "table", fields=("a",)),), "y", "classification", "accuracy", classes=("n", "p"))
VALUE = Schema("s", (Modality("t", "table", fields=("a",)),), "y", "regression", "mae", center=5.0, scale=2.0)
LOGITS = torch.tensor([[0.0, math.log(3.0)], [0.0, 0.0], [9.0, -9.0]])  # probabilities 1/4 3/4, 1/2 1/2


def test_cross_entropy_by_hand_without_the_unknown_row() -> None:
    target = torch.tensor([1, 0, -1])
    expected = -(math.log(0.75) + math.log(0.5)) / 2
    assert TaskLoss().rows(TWO, LOGITS, target).item() == pytest.approx(expected)


def test_class_weights_make_a_weighted_mean() -> None:
    target = torch.tensor([1, 0, -1])
    expected = -(3 * math.log(0.75) + 1 * math.log(0.5)) / 4
    assert TaskLoss(class_weights=(1.0, 3.0)).rows(TWO, LOGITS, target).item() == pytest.approx(expected)


def test_label_smoothing_by_hand() -> None:
    expected = -(0.9 * math.log(0.75) + 0.1 * math.log(0.25))
    loss = TaskLoss(label_smoothing=0.2).rows(TWO, LOGITS[:1], torch.tensor([1]))
    assert loss.item() == pytest.approx(expected)


def test_regression_is_in_units_of_the_spread() -> None:
    output, target = torch.tensor([[6.0], [11.0], [0.0]]), torch.tensor([5.0, 5.0, math.nan])
    # residuals 0.5 and 3: Huber 0.125 and 2.5, squares 0.25 and 9
    assert TaskLoss().rows(VALUE, output, target).item() == pytest.approx((0.125 + 2.5) / 2)
    assert TaskLoss(regression="mse").rows(VALUE, output, target).item() == pytest.approx((0.25 + 9) / 2)


@pytest.mark.parametrize(("schema", "target"), [(TWO, [-1, -1, -1]), (VALUE, [math.nan] * 3)])
def test_a_batch_without_known_targets_costs_nothing(schema: Schema, target: list[float]) -> None:
    output = LOGITS[:, : schema.outputs].clone().requires_grad_()
    loss = TaskLoss().rows(schema, output, torch.tensor(target))
    loss.backward()
    assert loss.item() == 0
    assert output.grad is not None
    assert output.grad.isfinite().all()


def test_a_mixed_row_counts_for_both_targets() -> None:
    target, mix = torch.tensor([1, 0, -1]), Mix(torch.tensor([1, 2, 0]), torch.tensor([0.75, 0.5, 0.5]))
    # row 0: 3/4 of its own target and 1/4 of row 1's; row 1: half, and an unknown one; row 2: half of row 0's
    rows = [0.75 * -math.log(0.75) + 0.25 * -math.log(0.25), 0.5 * -math.log(0.5), 0.5 * (math.log1p(math.exp(18)))]
    assert TaskLoss().rows(TWO, LOGITS, target, mix=mix).item() == pytest.approx(sum(rows) / 2)


def test_remembered_answers_are_mixed_as_the_rows_are(tiny_data) -> None:
    answers = LOGITS[None]
    lesson = Distillation(network(tiny_data), remembered=answers)
    batch = Batch({}, rows=torch.tensor([0, 1]), mix=Mix(torch.tensor([1, 0]), torch.tensor([0.75, 1.0])))
    chances = lesson.recall(TWO, batch).softmax(dim=-1)[0]
    assert chances[0].tolist() == pytest.approx([0.75 * 0.25 + 0.25 * 0.5, 0.75 * 0.75 + 0.25 * 0.5])
    assert chances[1].tolist() == pytest.approx([0.5, 0.5])
    values = Distillation(network(tiny_data), remembered=torch.tensor([[[1.0], [3.0]]])).recall(VALUE, batch)
    assert values.flatten().tolist() == pytest.approx([1.5, 3.0])


def test_balanced_weights_by_hand() -> None:
    # 3 rows of class 0, 1 of class 1, none of class 2: 4/(2*3), 4/(2*1), 1
    assert balanced_weights(np.array([0, 0, 0, 1, -1]), 3) == pytest.approx((2 / 3, 2.0, 1.0))


def test_class_weights_for_regression_are_refused() -> None:
    with pytest.raises(RecipeError, match="classification"):
        task_loss(TrainConfig(class_weights=True), VALUE, np.zeros(3))


def test_exits_add_their_mean_loss_over_the_rows_that_have_them(tiny_data) -> None:
    model, batch = network(tiny_data, exits=True).eval(), batch_of(tiny_data.train, range(16))
    assert batch.present
    plain, weighed = TaskLoss(exit_weight=0.0)(model, batch), TaskLoss(exit_weight=0.5)(model, batch)
    task, streams = TaskLoss(), model.encode_all(batch)
    early = []
    for name, tokens in streams.items():
        rows = batch.present.get(name, torch.ones(16, dtype=torch.bool))
        early.append(task.rows(model.schema, model.exit(name, tokens)[rows], batch.target[rows]))
    assert (weighed - plain).item() == pytest.approx(0.5 * torch.stack(early).mean().item(), rel=1e-4)


def test_a_batch_without_targets_is_refused(tiny_data) -> None:
    batch = dataclasses.replace(batch_of(tiny_data.train, range(4)), target=None)
    with pytest.raises(TrainingError, match="needs targets"):
        TaskLoss()(network(tiny_data), batch)


# ---- distillation


def test_without_a_teachers_share_only_the_task_is_left(tiny_data) -> None:
    student, teacher = network(tiny_data).eval(), network(tiny_data, seed=1)
    batch = batch_of(tiny_data.train, range(8))
    assert Distillation(teacher, alpha=0.0)(student, batch).item() == pytest.approx(TaskLoss()(student, batch).item())


def test_a_student_equal_to_its_teacher_has_nothing_to_learn(tiny_data) -> None:
    student, teacher = network(tiny_data).eval(), network(tiny_data)
    loss = Distillation(teacher, alpha=1.0, feature_weight=1.0)(student, batch_of(tiny_data.train, range(8)))
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-5)
    assert all(p.grad is None or p.grad.abs().max() < 1e-4 for p in student.parameters())


def test_the_teacher_stays_frozen_and_in_evaluation_mode(tiny_data) -> None:
    student, teacher = network(tiny_data), network(tiny_data, seed=1).train()
    Distillation(teacher, feature_weight=1.0)(student, batch_of(tiny_data.train, range(8))).backward()
    assert not teacher.training
    assert all(p.grad is None for p in teacher.parameters())
    assert any(p.grad is not None and p.grad.any() for p in student.parameters())


def test_soft_loss_by_hand() -> None:
    student, teacher = LOGITS[1:2], LOGITS[:1].unsqueeze(0)
    expected = 0.25 * math.log(0.25 / 0.5) + 0.75 * math.log(0.75 / 0.5)
    assert soft_loss(TWO, student, teacher).item() == pytest.approx(expected)


def test_the_soft_gradient_does_not_shrink_with_the_temperature() -> None:
    teacher = torch.tensor([[[1.0, -1.0]]])
    sizes = []
    for temperature in (50.0, 500.0):
        student = torch.zeros(1, 2, requires_grad=True)
        soft_loss(TWO, student, teacher, temperature).backward()
        sizes.append(student.grad.norm().item())
    assert sizes[0] == pytest.approx(sizes[1], rel=1e-3)


def test_several_teachers_vote_by_their_mean_probability() -> None:
    teachers = torch.stack([LOGITS[:1], -LOGITS[:1]])  # 1/4 3/4 and 3/4 1/4
    assert soft_loss(TWO, torch.zeros(1, 2), teachers).item() == pytest.approx(0, abs=1e-6)
    assert soft_loss(VALUE, torch.tensor([[4.0]]), torch.tensor([[[1.0]], [[3.0]]])).item() == pytest.approx(1.0)


def test_a_teacher_may_see_a_modality_that_the_student_lacks(tiny_data) -> None:
    teacher, student = network(tiny_data), network(tiny_data.only("table"))
    loss = Distillation([teacher, teacher])(student, batch_of(tiny_data.train, range(8)))
    assert loss.isfinite()


def test_similarity_ignores_rotation_and_width_but_not_content() -> None:
    features = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    turned = features @ torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(1))).Q
    padded = torch.cat([turned, torch.zeros(6, 3)], dim=1)
    assert similarity_loss({"a": features}, {"a": 3 * padded, "b": features}).item() == pytest.approx(0, abs=1e-10)
    assert similarity_loss({"a": features}, {"a": features.flip(0)}).item() > 0.01
    with pytest.raises(TrainingError, match="no modality in common"):
        similarity_loss({"a": features}, {"b": features})


@pytest.mark.parametrize("options", [{"alpha": 1.5}, {"temperature": 0.0}, {"feature_weight": -1.0}])
def test_a_wrong_option_of_distillation_is_named(tiny_data, options: dict[str, float]) -> None:
    with pytest.raises(RecipeError, match=f"Distillation.{next(iter(options))}"):
        Distillation(network(tiny_data), **options)


def test_distillation_needs_a_teacher() -> None:
    with pytest.raises(RecipeError, match="at least one teacher"):
        Distillation([])
