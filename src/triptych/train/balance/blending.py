"""Gradient blending (Wang et al. 2020): weigh losses by how much they generalise and how little they overfit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, ClassVar, final

import torch
from torch import Tensor

from triptych.tokens import Batch, Tokens
from triptych.train.balance.balance import Balance, alone, apart, row_losses

if TYPE_CHECKING:
    from triptych.model.multimodal import Multimodal
    from triptych.train.losses import TaskLoss

_LEAST = 1e-3  # growth of overfitting below which it is noise


@final
class Blending(Balance):
    """Minimise Σ w_k L_k over the modalities alone and all together, w ∝ |G_k / O_k²|, adding up to one.

    Between two validations G_k is what the validation loss of answer k fell by, and O_k what its overfitting, the
    validation less the training loss, grew by.  Until there are two of them all count alike.  The validation split,
    which also chooses the best network, stands for the paper's held-out part of the training rows.

    weights: (modalities + 1,), all together last;  paid: (2, modalities + 1) training losses since the last validation,
    summed, and steps;  last: (2, modalities + 1) training and validation loss at the last validation, NaN before
    """

    watches: ClassVar[bool] = True

    def __init__(self, model: Multimodal, strength: float) -> None:
        super().__init__(model, strength)
        count = len(self.names) + 1
        self.register_buffer("weights", torch.full((count,), 1 / count))
        self.register_buffer("paid", torch.zeros(2, count))
        self.register_buffer("last", torch.full((2, count), torch.nan))
        self.weights: Tensor
        self.paid: Tensor
        self.last: Tensor

    def loss(
        self,
        task: TaskLoss,
        model: Multimodal,
        *,
        batch: Batch,
        streams: Mapping[str, Tokens],
        output: Tensor,
        loss: Tensor,
    ) -> Tensor:
        """The weighted sum of all losses."""
        if batch.target is None:
            return loss
        with apart(model):
            answers = alone(model, streams)
        costs = {
            n: task.rows(model.schema, a, batch.target, present=batch.present.get(n), mix=batch.mix)
            for n, a in answers.items()
        }
        own = [self.weights[i] * costs[name] for i, name in enumerate(self.names) if name in costs]
        self.paid += self._plain(model, batch, {**answers, "": output})
        return self.weights[-1] * loss + torch.stack(own).sum()

    @torch.no_grad()
    def _plain(self, model: Multimodal, batch: Batch, answers: Mapping[str, Tensor]) -> Tensor:
        """Sum of the losses without smoothing, and rows, of each answer: (2, modalities + 1)"""
        found = self.paid.new_zeros(2, len(self.names) + 1)
        for number, name in enumerate((*self.names, "")):
            if name in answers:
                cost, weight = row_losses(model, batch, name, answers[name].detach())
                found[:, number] = torch.stack([(cost * weight).sum(), weight.sum()])
        return found

    @torch.no_grad()
    def validated_(self, model: Multimodal, batches: Iterable[Batch]) -> None:
        """Estimate the weights anew."""
        seen = torch.zeros_like(self.paid)
        for batch in batches:
            streams = model.encode_all(batch)
            answers = {**alone(model, streams), "": model.decide(streams)}
            seen += self._plain(model, batch, answers)
        now = torch.stack([self.paid[0] / self.paid[1], seen[0] / seen[1]])
        found = blend(self.last, now, self.strength)
        if found.isfinite().all():
            self.weights.copy_(found)
        self.last.copy_(now)
        self.paid.zero_()


def blend(before: Tensor, now: Tensor, strength: float = 1.0) -> Tensor:
    """w ∝ |G / O²|, to the power of the strength, adding up to one: (answers,), NaN where something is unknown.

    before, now: (2, answers) training and validation losses
    """
    gain = before[1] - now[1]
    overfitting = (now[1] - now[0]) - (before[1] - before[0])
    worth = (gain.abs() / overfitting.abs().clamp(min=_LEAST).square()).pow(strength)
    return worth / worth.sum()
