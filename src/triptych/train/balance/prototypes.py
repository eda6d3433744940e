"""Prototype rebalancing (Fan et al. 2023, PMR, without its entropy term)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, final

import torch
from torch import Tensor
from torch.nn import functional

from triptych.schema import Schema
from triptych.tokens import Batch, Tokens
from triptych.train.balance.balance import Balance, dims_of, others

if TYPE_CHECKING:
    from triptych.model.multimodal import Multimodal
    from triptych.train.losses import TaskLoss

KEEP = 0.9  # of a prototype, at each step that has rows of its class
BINS = 5  # classes that a value is taken for, each one spread wide


@final
class Prototypes(Balance):
    """Pull the features of a modality that lags behind towards the prototypes of their classes.

    c_mk: moving mean of modality m's pooled features of class k;  p_m(k) = softmax over k of −‖z_m − c_mk‖;
    s_m = mean p_m(right class);  loss + α Σ_m clip(mean of the others' s / s_m − 1, 0, 1) · mean −log p_m(right class).
    A value counts as one of five classes, each as wide as the target's spread, around its mean.
    """

    def __init__(self, model: Multimodal, strength: float) -> None:
        super().__init__(model, strength)
        self.classes = len(model.schema.classes) or BINS
        for name, dim in dims_of(model).items():
            self.register_buffer(f"prototypes_{name}", torch.zeros(self.classes, dim))
            self.register_buffer(f"seen_{name}", torch.zeros(self.classes, dtype=torch.bool))

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
        """Add what the lagging modalities pay, then move the prototypes."""
        del task, output
        if batch.target is None:
            return loss
        index = class_of(model.schema, batch.target)
        scores, costs = torch.full((len(self.names),), torch.nan), {}
        for number, name in enumerate(self.names):
            if name in streams:
                vectors, here = streams[name].mean().float(), streams[name].real().any(dim=1) & (index >= 0)
                found = self._costs(name, vectors[here], index[here])
                if len(found):
                    scores[number], costs[number] = (-found.detach()).exp().mean().cpu(), found.mean()
                self._move_(name, vectors[here].detach(), index[here])
        weights = lag(scores)
        added = [weights[number] * cost for number, cost in costs.items()]
        return loss + self.strength * torch.stack(added).sum() if added else loss

    def _costs(self, name: str, vectors: Tensor, index: Tensor) -> Tensor:
        """−log p(right class), of the rows whose class has a prototype: (rows or fewer,)"""
        prototypes, seen = self._of(name)
        rows = seen[index]
        distances = (vectors[rows].unsqueeze(1) - prototypes).square().sum(dim=-1).add(1e-12).sqrt()
        return functional.cross_entropy((-distances).masked_fill(~seen, -torch.inf), index[rows], reduction="none")

    @torch.no_grad()
    def _move_(self, name: str, vectors: Tensor, index: Tensor) -> None:
        prototypes, seen = self._of(name)
        member = functional.one_hot(index, self.classes).to(vectors.dtype)
        count = member.sum(dim=0)
        mean = (member.T @ vectors) / count.clamp(min=1).unsqueeze(1)
        keep = torch.where(seen, KEEP, 0.0).unsqueeze(1)
        prototypes.copy_(torch.where(count.unsqueeze(1) > 0, keep * prototypes + (1 - keep) * mean, prototypes))
        seen |= count > 0

    def _of(self, name: str) -> tuple[Tensor, Tensor]:
        return self.get_buffer(f"prototypes_{name}"), self.get_buffer(f"seen_{name}")


def lag(scores: Tensor) -> Tensor:
    """How far each modality is behind the others: clip(mean of the others / own − 1, 0, 1): (modalities,)"""
    return (others(scores) / scores - 1).nan_to_num().clamp(0, 1)


def class_of(schema: Schema, target: Tensor) -> Tensor:
    """Class of each row, −1 where unknown: (batch,) int64"""
    if schema.task == "classification":
        return target
    steps = ((target - schema.center) / schema.scale).round() + BINS // 2
    return torch.where(target.isfinite(), steps.nan_to_num().clamp(0, BINS - 1), -1.0).long()
