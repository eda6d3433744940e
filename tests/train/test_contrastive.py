"""Losses of retrieval against their formulas, written out pair by pair."""

import dataclasses
import math
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.train.small import SIZES, config
from triptych.data.loader import batch_of
from triptych.errors import ModelError, RecipeError
from triptych.model import build
from triptych.train import ContrastiveLoss, Distillation, evaluate, fit
from triptych.train.contrastive import affinity_loss, info_nce, matches, pairwise_sigmoid, similarity
from triptych.train.losses import task_loss


def embeddings(rows: int = 5, width: int = 4, seed: int = 0) -> Tensor:
    """Two unit vectors a row."""
    sides = torch.randn(rows, 2, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (sides / sides.norm(dim=-1, keepdim=True)).flatten(1).float()


def network(data: Any, **sizes: Any) -> Any:
    torch.manual_seed(0)
    return build("dual_encoder", data.schema, **{**SIZES, "embedding": 12, **sizes})


DIFFERENT = torch.arange(5).unsqueeze(1).expand(5, 2)
REPEATED = torch.tensor([[0, 0], [1, 1], [2, 0], [3, 3], [1, 4]])  # rows 0 and 2 share a title, 1 and 4 a photo


@pytest.mark.parametrize("target", [DIFFERENT, REPEATED])
def test_info_nce_is_its_formula(target: Tensor) -> None:
    out, scale = embeddings().tolist(), 7.0
    groups = target.tolist()

    def like(i: int, j: int) -> float:
        return sum(a * b for a, b in zip(out[i][:4], out[j][4:], strict=True))

    total = 0.0
    for i in range(5):
        right = [j for j in range(5) if groups[i][0] == groups[j][0] or groups[i][1] == groups[j][1]]
        below = math.log(sum(math.exp(scale * like(i, j)) for j in range(5)))
        total -= sum(scale * like(i, j) - below for j in right) / len(right) / 5
    found = info_nce(scale * similarity(embeddings()), matches(target))
    assert found.item() == pytest.approx(total, rel=1e-5)


@pytest.mark.parametrize("target", [DIFFERENT, REPEATED])
def test_the_sigmoid_loss_is_its_formula(target: Tensor) -> None:
    out, scale, bias, groups = embeddings().tolist(), 7.0, -3.0, target.tolist()
    total = 0.0
    for i, j in product(range(5), range(5)):
        right = groups[i][0] == groups[j][0] or groups[i][1] == groups[j][1]
        logit = scale * sum(a * b for a, b in zip(out[i][:4], out[j][4:], strict=True)) + bias
        total += math.log1p(math.exp(-logit if right else logit)) / 5
    found = pairwise_sigmoid(scale * similarity(embeddings()) + bias, matches(target))
    assert found.item() == pytest.approx(total, rel=1e-5)


def test_smoothing_gives_every_target_its_share() -> None:
    logits = 3 * similarity(embeddings())
    even = -logits.log_softmax(dim=1).mean(dim=1).mean()
    exact = info_nce(logits, matches(DIFFERENT))
    assert info_nce(logits, matches(DIFFERENT), 0.2).item() == pytest.approx(
        (0.8 * exact + 0.2 * even).item(), rel=1e-5
    )


def test_a_repeated_title_is_no_wrong_answer() -> None:
    out = embeddings()
    out[2, 4:] = out[0, 4:]  # rows 0 and 2 share a title
    close = out.clone()
    close[[0, 2], :4] = out[0, 4:]  # and both photos are where it is
    for loss in (pairwise_sigmoid, info_nce):
        assert loss(30 * similarity(close), matches(REPEATED)) < loss(30 * similarity(out), matches(REPEATED))
    assert pairwise_sigmoid(30 * similarity(close), matches(REPEATED)) < pairwise_sigmoid(
        30 * similarity(close), matches(DIFFERENT)
    )


@pytest.mark.parametrize("form", ["info_nce", "sigmoid"])
def test_both_directions_and_the_learnt_temperature_count(tiny_pairs_data: Any, form: Any) -> None:
    model = network(tiny_pairs_data).eval()
    batch = batch_of(tiny_pairs_data.train, range(6))
    output = model(batch)
    scaled, bias = model.head.logits(similarity(output))
    positive = matches(batch.target)
    expected = {
        "info_nce": (info_nce(scaled, positive) + info_nce(scaled.T, positive)) / 2,
        "sigmoid": pairwise_sigmoid(scaled + bias, positive),
    }
    loss = ContrastiveLoss(form)(model, batch)
    assert loss.item() == pytest.approx(expected[form].item())
    loss.backward()
    assert model.head.log_scale.grad.abs() > 0
    assert (model.head.bias.grad is None) == (form == "info_nce")


def test_rows_without_a_side_do_not_count(tiny_pairs_data: Any) -> None:
    model, loss = network(tiny_pairs_data).eval(), ContrastiveLoss()
    batch = batch_of(tiny_pairs_data.train, range(6))
    fewer = batch_of(tiny_pairs_data.train, [0, 1, 2, 4, 5])
    unknown = batch.target.clone()
    unknown[3, 1] = -1
    assert loss(model, dataclasses.replace(batch, target=unknown)).item() == pytest.approx(loss(model, fewer).item())
    here = torch.arange(6) != 3
    assert loss(model, dataclasses.replace(batch, present={"title": here})).item() == pytest.approx(
        loss(model, fewer).item()
    )
    assert loss(model, batch.only("title")).item() == 0


def test_many_rows_are_judged_group_by_group(tiny_pairs_data: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    out, loss, schema = embeddings(), ContrastiveLoss(), tiny_pairs_data.schema
    target = DIFFERENT.clone()
    target[4] = -1
    whole = loss.rows(schema, out[:4], target[:4])
    assert loss.rows(schema, out, target).item() == pytest.approx(whole.item())
    monkeypatch.setattr("triptych.train.contrastive._GROUP", 3)
    first, rest = loss.rows(schema, out[:3], target[:3]), loss.rows(schema, out[3:], target[3:])
    assert rest.item() == pytest.approx(0, abs=1e-6)  # one known row is its own only candidate
    assert loss.rows(schema, out, target).item() == pytest.approx(0.75 * first.item())


def test_the_temperature_cannot_run_away(tiny_pairs_data: Any) -> None:
    head = network(tiny_pairs_data).head
    with torch.no_grad():
        head.log_scale.fill_(20.0)
    assert head.logits(torch.ones(()))[0].item() == pytest.approx(100)


def test_affinity_is_zero_for_the_teacher_itself_and_takes_other_widths() -> None:
    mine, wide = embeddings(), embeddings(width=9, seed=1)
    assert affinity_loss(mine, mine.unsqueeze(0), 2.0).item() == pytest.approx(0, abs=1e-6)
    assert affinity_loss(mine, wide.unsqueeze(0)) > 0


def test_options_that_retrieval_cannot_use_are_refused(tiny_pairs_data: Any) -> None:
    schema = tiny_pairs_data.schema
    for options in ({"modality_dropout": 0.1}, {"repair": True}, {"class_weights": True}):
        with pytest.raises(RecipeError, match="retrieval"):
            task_loss(config(**options), schema, tiny_pairs_data.train.targets)
    with pytest.raises(RecipeError, match="label_smoothing"):
        task_loss(config(contrast="sigmoid", label_smoothing=0.1), schema, tiny_pairs_data.train.targets)
    with pytest.raises(RecipeError, match="contrast"):
        config(contrast="triplet")


def test_a_contrastive_loss_needs_a_dual_encoder(tiny_data: Any, tiny_pairs_data: Any) -> None:
    from tests.train.small import network as classifier

    batch = batch_of(tiny_pairs_data.train, range(4))
    with pytest.raises(ModelError, match="dual_encoder"):
        ContrastiveLoss().of(classifier(tiny_data), batch, {}, embeddings())


@pytest.mark.parametrize("form", ["info_nce", "sigmoid"])
def test_training_finds_pairs(tiny_pairs_data: Any, form: Any) -> None:
    before = network(tiny_pairs_data)
    after = fit(before, tiny_pairs_data, config(epochs=12, contrast=form, lr=1e-2))
    assert evaluate(after, tiny_pairs_data.validation) > evaluate(before, tiny_pairs_data.validation)


def test_a_student_learns_from_embeddings_of_another_width(tiny_pairs_data: Any) -> None:
    teacher = network(tiny_pairs_data).eval()
    student = network(tiny_pairs_data, embedding=6)
    batch = batch_of(tiny_pairs_data.train, range(8))
    loss = Distillation(teacher, alpha=1.0)(student, batch)
    assert loss.item() == pytest.approx(
        affinity_loss(student.eval()(batch), teacher(batch).unsqueeze(0), 2.0).item(), rel=0.2
    )
    loss.backward()
    assert student.head.sides["title"].project.weight.grad.abs().sum() > 0
