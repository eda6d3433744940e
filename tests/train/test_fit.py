import copy
import io
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from triptych.data.dataset import Dataset
from triptych.errors import DataError, SchemaError, TrainingError
from triptych.measure.quality import quality
from triptych.model.encoder import DropTokens
from triptych.train import Distillation, TaskLoss, TrainConfig, evaluate, fit, fit_with_history, predict
from triptych.train.augment import Augment
from triptych.train.precision import Arithmetic, count_tokens
from triptych.train.progress import TrainProgress, live
from triptych.train.run import blend_

from .small import config, network, same


def test_training_learns_and_leaves_the_given_network_alone(tiny_data) -> None:
    model = network(tiny_data)
    before = copy.deepcopy(model)
    fitted = fit_with_history(model, tiny_data, config(epochs=15, average=0.9))
    assert same(model, before)
    assert not fitted.model.training
    assert fitted.quality is not None
    assert fitted.quality > 0.9
    assert fitted.history[-1]["loss"] < fitted.history[0]["loss"] / 2
    assert fitted.steps == 45
    assert evaluate(fitted.model, tiny_data.test) > 0.8


def test_regression_learns_in_the_targets_unit(tiny_regression_data) -> None:
    fitted = fit_with_history(network(tiny_regression_data), tiny_regression_data, config(epochs=15))
    outputs = predict(fitted.model, tiny_regression_data.test)
    assert outputs.shape == (16, 1)
    errors = np.abs(outputs[:, 0] - tiny_regression_data.test.targets)
    spread = np.abs(tiny_regression_data.test.targets - tiny_regression_data.schema.center)
    assert errors.mean() < 0.6 * spread.mean()


def test_the_seed_decides_everything_and_the_global_generator_nothing(tiny_data) -> None:
    options, augment = config(epochs=1, modality_dropout=0.3), Augment.default(tiny_data.schema)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    model = network(tiny_data)
    first = fit(model, tiny_data, options, augment=augment)
    torch.manual_seed(77)
    assert same(first, fit(model, tiny_data, options, augment=augment))
    assert not same(first, fit(model, tiny_data, config(epochs=1, seed=5), augment=augment))
    torch.set_rng_state(state)
    fit(model, tiny_data, options)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("last", [0.3, 0.0])
def test_tokens_are_left_out_until_the_last_part_of_a_run(tiny_data, last: float) -> None:
    shares: list[float] = []
    options = config(epochs=4, token_dropout=0.5, all_tokens=last)
    model = network(tiny_data, frames_per_token=1)

    def look(trained, fraction: float) -> None:
        shares.extend(part.share for part in trained.modules() if isinstance(part, DropTokens))

    fitted = fit_with_history(model, tiny_data, options, after_step=look)
    droppers = len(shares) // fitted.steps
    assert droppers
    whole = round(last * fitted.steps)
    assert shares[: droppers * (fitted.steps - whole)] == [0.5] * droppers * (fitted.steps - whole)
    assert shares[droppers * (fitted.steps - whole + 1) :] == [0.0] * droppers * max(whole - 1, 0)
    assert not same(fitted.model, fit(model, tiny_data, config(epochs=4)))


def test_the_best_validated_network_is_returned(tiny_data) -> None:
    fitted = fit_with_history(network(tiny_data), tiny_data, config(epochs=6, lr=0.02))
    qualities = [record["quality"] for record in fitted.history]
    assert fitted.quality == max(qualities)
    assert evaluate(fitted.model, tiny_data.validation) == fitted.quality


def test_patience_ends_a_run_that_no_longer_improves(tiny_data) -> None:
    fitted = fit_with_history(network(tiny_data), tiny_data, config(epochs=50, lr=1e-12, patience=2))
    assert 3 <= len(fitted.history) < 50


def test_the_clock_ends_a_run_with_the_schedule_complete(tiny_data, tmp_path: Path) -> None:
    events: list[TrainProgress] = []
    options = config(epochs=100_000, max_seconds=1.5, patience=None)
    fitted = fit_with_history(network(tiny_data), tiny_data, options, progress=events.append)
    assert fitted.steps < 100_000
    assert events[-1].fraction == 1
    assert events[-1].lr < 0.1 * max(e.lr for e in events)
    assert fitted.history[-1]["step"] == fitted.steps


def test_progress_comes_after_every_step_and_nothing_is_printed(tiny_data, capsys) -> None:
    events: list[TrainProgress] = []
    fit(network(tiny_data), tiny_data, config(), progress=events.append)
    assert [e.step for e in events] == [1, 2, 3, 4, 5, 6]
    assert [e.fraction for e in events] == pytest.approx([k / 6 for k in range(1, 7)])
    assert events[1].quality is None
    assert events[2].quality is not None
    assert all(math.isfinite(e.loss) for e in events)
    assert capsys.readouterr() == ("", "")


def test_the_live_view_shows_loss_and_quality(tiny_data) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=120)
    with live("teacher", console=console) as watch:
        fit(network(tiny_data), tiny_data, config(), progress=watch)
    text = console.file.getvalue()
    assert "teacher" in text
    assert "quality" in text


def test_a_folder_holds_history_and_events(tiny_data, tmp_path: Path) -> None:
    fit(network(tiny_data), tiny_data, config(), folder=tmp_path / "new" / "run")
    names = {p.name for p in (tmp_path / "new" / "run").iterdir()}
    assert names == {"checkpoint.safetensors", "history.json", "tensorboard"}
    assert list((tmp_path / "new" / "run" / "tensorboard").glob("events.*"))


def test_a_non_finite_loss_names_its_step(tiny_data) -> None:
    calls = []

    def explode(model, batch):
        calls.append(0)
        return TaskLoss()(model, batch) * (math.inf if len(calls) == 4 else 1.0)

    with pytest.raises(TrainingError, match="not finite at step 4; lower lr"):
        fit(network(tiny_data), tiny_data, config(), objective=explode)


def test_a_non_finite_loss_is_never_saved(tiny_data, tmp_path: Path) -> None:
    def explode(model, batch):
        return TaskLoss()(model, batch) * math.nan

    with pytest.raises(TrainingError, match="not finite at step 1"):
        fit(network(tiny_data), tiny_data, config(checkpoint_every_s=0.0), objective=explode, folder=tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_non_finite_gradient_names_its_step(tiny_data) -> None:
    def steep(model, batch):
        loss = TaskLoss()(model, batch)
        return loss + (loss - loss.detach()).abs().sqrt()  # adds nothing, with an undefined slope

    with pytest.raises(TrainingError, match="gradient is not finite at step 1"):
        fit(network(tiny_data), tiny_data, config(clip=0.0), objective=steep)


def test_training_goes_on_without_a_validation_split(tiny_data) -> None:
    data = Dataset(tiny_data.schema, {"train": tiny_data.train})
    fitted = fit_with_history(network(tiny_data), data, config())
    assert fitted.quality is None
    assert [r["quality"] for r in fitted.history] == [None, None]
    assert same(fitted.model, fit(network(tiny_data), data, config(patience=None)))


def test_fewer_rows_than_a_batch_are_one_step(tiny_data) -> None:
    data = Dataset(tiny_data.schema, {"train": tiny_data.train.subset(range(5))})
    assert fit_with_history(network(tiny_data), data, config(epochs=3)).steps == 3
    empty = Dataset(tiny_data.schema, {"train": tiny_data.train.subset([])})
    with pytest.raises(TrainingError, match="no rows"):
        fit(network(tiny_data), empty, config())


def test_a_network_for_other_data_is_refused(tiny_data, tiny_regression_data) -> None:
    with pytest.raises(SchemaError, match=r"training needs .*audio"):
        fit(network(tiny_data), tiny_regression_data, config())


def test_a_student_of_one_modality_learns_from_a_teacher_of_all(tiny_data) -> None:
    teacher = fit(network(tiny_data), tiny_data, config(epochs=8))
    before = copy.deepcopy(teacher)
    student = network(tiny_data.only("table"))
    objective = Distillation(teacher, alpha=0.9, feature_weight=0.1)
    fitted = fit_with_history(student, tiny_data, config(epochs=8, label_smoothing=0.1), objective=objective)
    assert fitted.model.schema.names == ("table",)
    assert fitted.quality is not None
    assert fitted.quality > 0.6
    assert same(teacher, before)


def test_an_objective_may_have_parameters_of_its_own(tiny_data) -> None:
    class Learned(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.shift = torch.nn.Parameter(torch.zeros(()))

        def forward(self, model, batch):
            return TaskLoss()(model, batch) + (self.shift - 1).square()

    objective = Learned()
    fit(network(tiny_data), tiny_data, config(), objective=objective)
    assert objective.shift.item() > 0


def test_after_step_can_hold_weights_at_zero(tiny_data) -> None:
    fractions = []

    def hold(model, fraction: float) -> None:
        fractions.append(fraction)
        with torch.no_grad():
            model.head.up.weight[0] = 0

    model = fit(network(tiny_data), tiny_data, config(average=0.5), after_step=hold)
    assert fractions[-1] == 1
    first = network(tiny_data).head.up.weight[0].norm()
    assert model.head.up.weight[0].norm() < first
    assert not fit(network(tiny_data), tiny_data, config(), after_step=hold).head.up.weight[0].any()


def test_frozen_parameters_stay(tiny_data) -> None:
    model = network(tiny_data)
    model.encoders.requires_grad_(False)
    fitted = fit(model, tiny_data, config())
    assert same(model.encoders, fitted.encoders)
    assert not same(model.head, fitted.head)


def test_averaging_by_hand() -> None:
    average, model = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)
    torch.nn.init.constant_(average.weight, 1.0)
    torch.nn.init.constant_(model.weight, 3.0)
    blend_(average, model, 0.75)
    assert average.weight.item() == pytest.approx(0.75 * 1 + 0.25 * 3)


def test_averages_of_a_batch_norm_move_with_its_weights_and_counts_are_copied() -> None:
    average, model = torch.nn.BatchNorm1d(1), torch.nn.BatchNorm1d(1)
    model.running_mean.fill_(4.0)
    model.num_batches_tracked.fill_(7)
    blend_(average, model, 0.75)
    assert (average.running_mean.item(), average.num_batches_tracked.item()) == (1.0, 7)


# ---- precision


def test_bfloat16_trains_to_about_the_same_loss(tiny_data) -> None:
    losses = [
        fit_with_history(network(tiny_data), tiny_data, config(precision=p)).history[-1]["loss"]
        for p in ("float32", "bfloat16")
    ]
    assert losses[0] == pytest.approx(losses[1], rel=0.1)


def test_auto_precision_keeps_narrow_and_quantized_networks_in_float32(tiny_data) -> None:
    cpu = torch.device("cpu")
    assert Arithmetic("auto", network(tiny_data), cpu).dtype == torch.float32
    assert Arithmetic("auto", network(tiny_data, dim=256, heads=8), cpu).dtype in {torch.float32, torch.bfloat16}
    assert Arithmetic("bfloat16", network(tiny_data), cpu).plain_attention
    assert count_tokens(network(tiny_data)) > 5


# ---- evaluation


def test_predictions_are_in_row_order_whatever_the_batch_size(tiny_data) -> None:
    model = network(tiny_data).train()
    whole, pieces = predict(model, tiny_data.validation), predict(model, tiny_data.validation, batch_size=3)
    assert whole.shape == (16, 3)
    assert whole.dtype == np.float32
    np.testing.assert_allclose(whole, pieces, atol=1e-5)
    assert model.training
    assert model.head.training
    expected = quality(whole.astype(np.float64), tiny_data.validation.targets, tiny_data.schema)
    assert evaluate(model, tiny_data.validation) == expected


def test_nothing_to_predict_is_an_error(tiny_data) -> None:
    with pytest.raises(DataError, match="no rows"):
        predict(network(tiny_data), tiny_data.validation.subset([]))


def test_the_default_configuration_is_valid() -> None:
    assert TrainConfig().epochs > 0
