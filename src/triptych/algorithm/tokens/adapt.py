"""Read of each modality only as much as the row at hand is worth."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from itertools import islice
from typing import ClassVar, final

import numpy as np
import torch

from triptych.algorithm.rebuild import fresh_model
from triptych.algorithm.teaching.finetune import Train
from triptych.algorithm.technique import Context, Range, Space
from triptych.data.loader import batches as load
from triptych.errors import ModelError, RecipeError
from triptych.model.config import GateConfig
from triptych.model.cost import count_choices_, fit_price_
from triptych.model.gates import GATES
from triptych.model.multimodal import Multimodal
from triptych.train.allotment import Allotment
from triptych.train.config import TrainConfig
from triptych.train.evaluate import predict
from triptych.train.loop import fit
from triptych.train.losses import Distillation, TaskLoss, task_loss
from triptych.train.noise import ladders
from triptych.train.settling import settle

_PRICED = 64  # batches that the price is fitted on
_SETTLED = 32  # batches that the worths are fitted on in the end
_NOISY = 8  # batches by which the gate learns to read less of what turns into noise


@final
@dataclass(frozen=True)
class AdaptTokens(Train):
    """Put a gate between the stems and the blocks, and train it with the network (see `Allotment`).

    Starts from the network's own weights and learns from its answers and from the targets: first network and gate
    together, if at all; then the gate settles on the network at rest and learns to read less of a modality that turns
    into noise (see `triptych.train.settling`); then the network learns to live with what the gate lets through.  The
    price of compute is fitted to the budget on validation rows: on those that it was trained on, a gate chooses
    otherwise than on new ones.  Further knobs: see `Train`.

    budget:   mean cost of a row, as a share of the network's operations without a gate
    cap:      most that any one row may cost, in the same unit; 0 is no limit
    shares:   of a modality's tokens that may be kept; 0 leaves the modality out
    gate:     name of the gate
    alpha:    share of the original's answers in the loss; the rest is the task's loss
    together: share of the training that the network and its gate begin with, by a straight-through estimator
    """

    saves: ClassVar[frozenset[str]] = frozenset({"latency"})
    space: ClassVar[Space] = {**Train.space, "budget": Range(0.2, 0.8)}
    budget: float = 0.4
    cap: float = 0.0
    shares: tuple[float, ...] = (0.0, 0.25, 0.5, 1.0)
    gate: str = "adaptive"
    alpha: float = 0.5
    together: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_number("budget", "in [0.01, 1]", 0.01, 1)
        self.require_number("cap", "in [0, 1]", 0, 1)
        self.require_number("alpha", "in [0, 1]", 0, 1)
        self.require_number("together", "in [0, 1)", 0, 0.99)
        self.require("gate", f"one of {sorted(GATES)}", holds=isinstance(self.gate, str) and self.gate in GATES)
        self.require("shares", "numbers in [0, 1], one of them above 0", holds=_are_shares(self.shares))

    def apply(self, model: Multimodal, context: Context) -> Multimodal:
        """A network with a gate.  Raises RecipeError where the network cannot have one or the budget is too small."""
        if model.gate is not None:
            raise RecipeError("this network has a gate; adapt the original with another budget")
        data, config = context.dataset(), context.train or TrainConfig()
        config = dataclasses.replace(
            config, seed=context.seed, epochs=self.epochs or config.epochs, lr=self.lr or config.lr
        )
        objective = self.objective(context)
        new = load(data.validation, model.schema, batch_size=config.batch_size, seed=context.seed)
        rows = [batch.only(*model.schema.names) for batch in islice(new, _PRICED)]
        try:
            result = gated(model, GateConfig(self.gate, self.shares, cap=self.cap, rank=self.together > 0))
            fit_price_(result, rows, self.budget)
            if self.together:
                first, hook = _part(config, self.together), objective.after_step
                result = fit(result, data, first, objective=objective, progress=context.progress, after_step=hook)
            known, others = (
                load(data.train, model.schema, batch_size=config.batch_size, seed=seed, shuffle=True)
                for seed in (context.seed, context.seed + 1)
            )
            noisier = ladders(model.schema, islice(others, _NOISY), context.seed)
            settle(result, islice(known, _SETTLED), objective, noisier=noisier, seed=context.seed)
            fit_price_(result, rows, self.budget)
            rest = _part(config, 1 - self.together)
            rest = dataclasses.replace(rest, freeze=(*rest.freeze, *what_decides(result)))
            result = fit(result, data, rest, objective=objective.lesson, progress=context.progress)
            fit_price_(result, rows, self.budget)
        except ModelError as error:
            raise RecipeError(f"{self!r} cannot run: {error}") from error
        return result

    def objective(self, context: Context) -> Allotment:
        """The task's loss and the original's answers, on what the gate lets through."""
        config, original = context.train or TrainConfig(), context.original
        task = task_loss(config, original.schema, np.asarray(context.dataset().train.targets))
        if not isinstance(task, TaskLoss):
            raise RecipeError("a gate stands before a fusion, which a network for retrieval has not")
        if not self.alpha:
            return Allotment(self.budget, task)
        answers = torch.from_numpy(predict(original, context.dataset().train)).unsqueeze(0)
        return Allotment(self.budget, task, Distillation(original, self.alpha, remembered=answers))


def _part(config: TrainConfig, share: float) -> TrainConfig:
    """A share of the same training."""
    seconds = None if config.max_seconds is None else share * config.max_seconds
    return dataclasses.replace(config, epochs=max(1, round(share * config.epochs)), max_seconds=seconds)


def what_decides(model: Multimodal) -> tuple[str, ...]:
    """Prefixes of the gate and of what it reads; as long as these rest, every row keeps its choice."""
    return ("gate", *(f"encoders.{name}.stem" for name in model.encoders))


def gated(model: Multimodal, gate: GateConfig) -> Multimodal:
    """The same network with a fresh gate, whose choices have their real costs.  Raises ModelError."""
    result = fresh_model(dataclasses.replace(model.config, gate=gate), model)
    result.load_state_dict({**result.state_dict(), **model.state_dict()})
    count_choices_(result)
    return result


def _are_shares(value: object) -> bool:
    numbers = isinstance(value, tuple) and all(
        isinstance(one, int | float) and not isinstance(one, bool) and 0 <= one <= 1 for one in value
    )
    return numbers and isinstance(value, tuple) and any(value)
