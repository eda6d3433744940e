"""`fit`: the same loop for every network, objective and device."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from triptych.data.dataset import Dataset
from triptych.errors import RecipeError, SchemaError, TrainingError
from triptych.schema import Schema
from triptych.train.allocator import keep_memory
from triptych.train.augment import Augment, Augmentation
from triptych.train.balance import Balance, make_balance
from triptych.train.config import TrainConfig
from triptych.train.folder import RunFolder
from triptych.train.losses import Distillation, Objective, TaskLoss, task_loss
from triptych.train.progress import Interruption, Watch
from triptych.train.run import AfterStep, Hooks, Run
from triptych.train.state import Record

if TYPE_CHECKING:
    from triptych.model.multimodal import Multimodal

DEFAULT = TrainConfig()


@dataclass(frozen=True)
class Fitted:
    """A trained network and how it came about.

    history: one record per validation: step, epoch, elapsed_s, lr, loss, quality, validation_loss
    quality: the schema's metric of `model` on validation, None without a validation split
    """

    model: Multimodal
    history: tuple[Record, ...]
    quality: float | None
    steps: int
    seconds: float


def fit(
    model: Multimodal,
    data: Dataset,
    config: TrainConfig = DEFAULT,
    *,
    objective: Objective | None = None,
    augment: Augmentation | None = None,
    folder: str | Path | None = None,
    resume: bool = False,
    progress: Watch | None = None,
    after_step: AfterStep | None = None,
) -> Multimodal:
    """Train a copy of `model` and return the one that was best on validation, in evaluation mode.

    objective:  what to minimise; None is the task's loss with the options of `config`
    folder:     where to keep the checkpoint, history.json and TensorBoard events; None keeps nothing
    resume:     go on from the checkpoint in `folder`; starts at the beginning where there is none yet
    progress:   called after every step
    after_step: `(model, fraction)` called after every update, to keep pruned weights at zero for instance

    Raises TrainingError on a non-finite loss and on a damaged or foreign checkpoint.  Ctrl-C saves and then raises
    KeyboardInterrupt, which tells how to go on.
    """
    hooks = {"objective": objective, "augment": augment, "progress": progress, "after_step": after_step}
    return fit_with_history(model, data, config, folder=folder, resume=resume, **hooks).model  # type: ignore[arg-type]


def fit_with_history(
    model: Multimodal,
    data: Dataset,
    config: TrainConfig = DEFAULT,
    *,
    objective: Objective | None = None,
    augment: Augmentation | None = None,
    folder: str | Path | None = None,
    resume: bool = False,
    progress: Watch | None = None,
    after_step: AfterStep | None = None,
) -> Fitted:
    """`fit`, with the history beside the network."""
    if resume and folder is None:
        raise TrainingError("resume=True needs the folder that holds the checkpoint; pass folder=…")
    keep_memory()
    balance = make_balance(config, model)
    objective = _with_task(objective, model, data, config, balance)
    schema = _input_schema(model.schema, data.schema, objective)
    if augment is None:
        augment = Augment.of(config, schema)
    run = Run(model, data, config, Hooks(objective, augment, progress, after_step, balance), schema=schema)
    devices = [run.device] if run.device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices=devices), Interruption() as interruption:
            run.open(RunFolder(folder, writes=run.accelerator.is_main_process), resume=resume)
            run.train(interruption)
        return _result(run)
    finally:
        run.close()


def _with_task(
    objective: Objective | None, model: Multimodal, data: Dataset, config: TrainConfig, balance: Balance | None
) -> Objective:
    task = task_loss(config, model.schema, np.asarray(data.train.targets))
    if balance is not None and isinstance(task, TaskLoss):
        _check_balance(balance, objective, data, config)
        task = replace(task, balance=balance)
    if objective is None:
        return task
    return objective.with_task(task) if isinstance(objective, Distillation) else objective


def _check_balance(balance: Balance, objective: Objective | None, data: Dataset, config: TrainConfig) -> None:
    """Raise RecipeError where the balance would have nothing to say."""
    taught = isinstance(objective, Distillation) and objective.task is None and objective.alpha < 1
    if objective is not None and not taught:
        raise RecipeError(
            f"balance={config.balance!r} is a part of the task's own loss, which this objective leaves out; "
            "set it to '', or leave the objective to `fit`"
        )
    if balance.watches and not len(data.splits.get("validation", ())):
        raise RecipeError(f"balance={config.balance!r} weighs by the validation rows, but the dataset has none")


def _input_schema(own: Schema, data: Schema, objective: Objective) -> Schema:
    """The model's schema, with the modalities that only its teachers look at."""
    wanted = objective.modalities if isinstance(objective, Distillation) else frozenset[str]()
    if missing := (set(own.names) | wanted) - set(data.names):
        raise SchemaError(f"training needs {sorted(missing)}, but the data has {sorted(data.names)}")
    names = [name for name in data.names if name in own.names or name in wanted]
    return replace(own, modalities=tuple(own[n] if n in own.names else data[n] for n in names))


def _result(run: Run) -> Fitted:
    counters, model = run.state.counters, run.model
    model.load_state_dict(run.state.best)
    model.zero_grad(set_to_none=True)
    for parameter in run.fixed:
        parameter.requires_grad = True
    best = None if counters.best is None else counters.best.quality(model.schema)
    return Fitted(model.eval(), tuple(counters.history), best, counters.step, run.elapsed_s())
