"""Learn to allot tokens to modalities: a straight-through estimator, and a price that keeps to a budget.

For every row two choices of the gate are run: the one that it makes (while learning also a random one) and a rival that
gives one modality another number of tokens.  Forward, the loss is that of the choice alone.  Backward, the gate gets
the gradient of the mixture p · (L₁ + price · c₁) + (1 − p) · (L₂ + price · c₂), with p = σ(s₁ − s₂) of the two scores:
the straight-through estimator of Bengio, Léonard and Courville (2013), over losses that were both really seen, in units
of their mean difference.  A pull of the scores towards each other keeps them from growing without end: where it and the
gradient balance, two scores differ by about as much as their losses do, so that a price can be set afterwards.  Each
step the price of compute rises by a factor e^{rate · (cost / budget − 1)}, so that the penalty holds the mean cost of
the choices to the budget, as a Lagrange multiplier does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, final

import torch
from torch import Tensor
from torch.nn import functional

from triptych.errors import TrainingError
from triptych.model.gates.gate import OVER_CAP
from triptych.schema import Schema
from triptych.tokens import Batch
from triptych.train.losses import Distillation, TaskLoss, soft_loss

if TYPE_CHECKING:
    from triptych.model.multimodal import Multimodal

_RATE, _LOWEST, _HIGHEST = 0.05, 1e-3, 1e3
_TINY = 1e-6  # mean difference of two choices below which they are alike
_CALM = 0.25  # as steep as the sigmoid is at zero
_EXPLORING, _STILL = 0.5, 0.05  # share of a run in which random choices fade, and their share afterwards


@final
@dataclass(eq=False)
class Allotment:
    """Objective of a network with a gate.

    budget: mean cost of a row that is aimed at, as a share of the operations of the network without a gate
    lesson: teachers to learn from as well; None learns from the targets alone.  Answers that it remembers tell of rows
            as they were before noise got in, which the gate is then not taught to read
    progress: share of the run that is over, told by `after_step`
    """

    budget: float
    task: TaskLoss = field(default_factory=TaskLoss)
    lesson: Distillation | None = None
    progress: float = 0.0

    def after_step(self, model: Multimodal, progress: float) -> None:  # noqa: ARG002
        """For the hook of the same name of `fit`."""
        self.progress = progress

    def __call__(self, model: Multimodal, batch: Batch) -> Tensor:
        """Run the choice and its rival.  Raises TrainingError without a gate or targets."""
        if model.gate is None or batch.target is None:
            raise TrainingError("an allotment is learnt by a network with a gate, from batches with targets")
        gate, answers, batch = model.gate, self.answers(model.schema, batch), batch.only(*model.schema.names)
        looks = model.look_all(batch)
        scores = gate.scores(gate.summaries(looks))
        allowed = scores.detach() > OVER_CAP / 2
        best = scores.argmax(dim=1)
        roam = torch.rand(len(best), device=best.device) < max(_STILL, 1 - self.progress / _EXPLORING)
        choice = torch.where(roam, _drawn(allowed, best), best)
        rival = _drawn(allowed & _neighbours(gate.keep, choice), choice)
        streams = model.encode_kept(looks, gate.keep[choice])
        output = model.decide(streams)
        with torch.no_grad():
            other = model.decide(model.encode_kept(looks, gate.keep[rival]))
            lost, found = (self.by_row(model.schema, one, batch, answers) for one in (other, output))
            spared = lost - found
            spared = spared / spared.abs().mean().clamp(min=_TINY)
            spared = spared + gate.price * (gate.cost[rival] - gate.cost[choice])
        self._follow(gate.price, gate.cost[best].mean())
        margin = _at(scores, choice) - _at(scores, rival)
        chance = margin.sigmoid()
        calm = _CALM / 2 * (margin.square() - margin.detach().square())
        straight_through = ((chance.detach() - chance) * spared + calm).mean()
        loss = self.task.of(model, batch, streams, output)
        if answers is not None and self.lesson is not None:
            soft = soft_loss(model.schema, output, answers, self.lesson.temperature)
            loss = self.lesson.alpha * soft + (1 - self.lesson.alpha) * loss
        return loss + straight_through

    def answers(self, schema: Schema, batch: Batch) -> Tensor | None:
        """What the teachers say of the rows: (teachers, batch, outputs); None without any."""
        return None if self.lesson is None else self.lesson.answers(schema, batch)[0]

    @torch.no_grad()
    def _follow(self, price: Tensor, cost: Tensor) -> None:
        """Raise the price where the choices cost more than the budget, lower it where they cost less."""
        price.clamp_(_LOWEST, _HIGHEST).mul_((_RATE * (cost / self.budget - 1)).exp())

    def by_row(self, schema: Schema, output: Tensor, batch: Batch, answers: Tensor | None) -> Tensor:
        """What choices are compared by: the task's loss, and distance from the teachers' answer: (batch,).

        The target tells that noise is not worth reading; what teachers answer, and not how sure of it they are, tells
        which rows have to be looked at, also where the target is known by heart.

        answers: (teachers, batch, outputs)
        """
        if batch.target is None:
            raise TrainingError("a training batch needs targets; this one has none")
        task = self.task.by_row(schema, output, batch.target, mix=batch.mix)
        if answers is None or self.lesson is None:
            return task
        if schema.task == "regression":
            moved = ((output.float() - answers.mean(dim=0)) / schema.scale).square().squeeze(1)
        else:
            said = answers.softmax(dim=-1).mean(dim=0).argmax(dim=1)
            moved = functional.cross_entropy(output.float(), said, reduction="none")
        return self.lesson.alpha * moved + (1 - self.lesson.alpha) * task


def _drawn(allowed: Tensor, otherwise: Tensor) -> Tensor:
    """A choice among the allowed ones, drawn evenly; `otherwise` where there is none.  (batch, choices) → (batch,)"""
    chances = torch.rand(allowed.shape, device=allowed.device).masked_fill(~allowed, -math.inf)
    return torch.where(allowed.any(dim=1), chances.argmax(dim=1), otherwise)


def _neighbours(keep: Tensor, choice: Tensor) -> Tensor:
    """Which choices differ in one modality alone: (batch, choices)."""
    return (keep.unsqueeze(0) != keep[choice].unsqueeze(1)).sum(dim=2) == 1


def _at(scores: Tensor, choice: Tensor) -> Tensor:
    return scores.gather(1, choice.unsqueeze(1)).squeeze(1)
