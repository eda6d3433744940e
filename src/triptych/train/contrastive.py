"""Objectives of retrieval: pull the two sides of a pair together, and all other pairs of the batch apart."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from triptych.errors import ModelError, RecipeError, TrainingError
from triptych.model.heads import PairHead
from triptych.schema import Schema
from triptych.tokens import Batch, Tokens
from triptych.train.config import Contrast

if TYPE_CHECKING:
    from triptych.model.multimodal import Multimodal

SCALE = 20.0  # one over the temperature wherever no network's own is at hand
_GROUP = 1024  # rows whose similarities are held at once


@dataclass(frozen=True)
class ContrastiveLoss:
    """Every row's pair against all others of its batch.  Rows with equal values on a side are right answers too.

    form: 'info_nce' (eq. 1 of the survey, in both directions) or 'sigmoid' (Zhai et al. 2023, SigLIP), with the
          temperature, and for 'sigmoid' the bias, that the network learns
    label_smoothing: of 'info_nce'
    """

    form: Contrast = "info_nce"
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        if self.label_smoothing and self.form == "sigmoid":
            raise RecipeError("label_smoothing is for contrast='info_nce'; set it to 0 for 'sigmoid'")

    def __call__(self, model: Multimodal, batch: Batch) -> Tensor:
        """Embed both sides and compare."""
        batch = batch.only(*model.schema.names)
        streams = model.encode_all(batch)
        return self.of(model, batch, streams, model.decide(streams))

    def of(self, model: Multimodal, batch: Batch, _streams: Mapping[str, Tokens], output: Tensor) -> Tensor:
        """Loss of a forward pass that was already made.  output: (batch, 2 · embedding)"""
        if batch.target is None:
            raise TrainingError("a training batch needs targets; this one has none")
        if not isinstance(model.head, PairHead):
            raise ModelError("a contrastive loss needs a network for retrieval; build('dual_encoder', …)")
        known = (batch.target >= 0).all(dim=1) & torch.stack(
            [batch.present.get(name, batch.target[:, 0] >= 0) for name in model.schema.pair]
        ).all(dim=0)
        if len(batch.inputs) < 2:
            known = torch.zeros_like(known)
        return self._loss(output, batch.target, known, model.head.logits)

    def rows(self, schema: Schema, output: Tensor, target: Tensor) -> Tensor:  # noqa: ARG002
        """The loss at a fixed temperature, to judge networks by: of groups of up to 1,024 rows in order, as of batches.

        output: (rows, 2 · embedding); target: (rows, 2)
        """
        known = (target >= 0).all(dim=1)
        groups = [slice(start, start + _GROUP) for start in range(0, len(output), _GROUP)]
        losses = [self._loss(output[g], target[g], known[g], _fixed) * known[g].sum() for g in groups]
        return torch.stack(losses).sum() / known.sum().clamp(min=1)

    def _loss(
        self, output: Tensor, target: Tensor, known: Tensor, logits: Callable[[Tensor], tuple[Tensor, Tensor]]
    ) -> Tensor:
        if not known.any():
            return output.float().sum() * 0
        with torch.autocast(output.device.type, enabled=False):
            scaled, bias = logits(similarity(output[known]))
            return CONTRASTS[self.form](scaled, bias, matches(target[known]), self.label_smoothing)


def _fixed(likeness: Tensor) -> tuple[Tensor, Tensor]:
    """Logits and bias of no network in particular."""
    return SCALE * likeness, likeness.new_tensor(-SCALE / 2)


def similarity(output: Tensor) -> Tensor:
    """Cosine of every query with every target: (rows, rows).  output: (rows, 2 · embedding), unit vectors"""
    query, target = output.float().chunk(2, dim=-1)
    return query @ target.T


def matches(target: Tensor) -> Tensor:
    """Which rows are right answers to each other, their own included: (rows, rows) bool.  target: (rows, 2)"""
    return (target.unsqueeze(0) == target.unsqueeze(1)).any(dim=-1)


def info_nce(logits: Tensor, positive: Tensor, smoothing: float = 0.0) -> Tensor:
    """Cross-entropy of each query over all targets (van den Oord et al. 2018), right ones sharing its mass: scalar.

    logits: (rows, rows), similarity over temperature; positive: (rows, rows) bool, at least one in each row
    smoothing: share of the mass that goes to all targets alike
    """
    share = positive.to(logits.dtype)
    share = share / share.sum(dim=1, keepdim=True)
    share = (1 - smoothing) * share + smoothing / logits.shape[1]
    return -(share * logits.log_softmax(dim=1)).sum(dim=1).mean()


def info_nce_both_ways(scaled: Tensor, _bias: Tensor, positive: Tensor, smoothing: float) -> Tensor:
    """The mean of `info_nce` from queries to targets and back (eq. 1 of the survey); a bias would cancel: scalar."""
    return (info_nce(scaled, positive, smoothing) + info_nce(scaled.T, positive, smoothing)) / 2


def biased_sigmoid(scaled: Tensor, bias: Tensor, positive: Tensor, _smoothing: float) -> Tensor:
    """`pairwise_sigmoid` with the bias that a network learns: scalar."""
    return pairwise_sigmoid(scaled + bias, positive)


def pairwise_sigmoid(logits: Tensor, positive: Tensor) -> Tensor:
    """−log σ(±logit) over all pairs, + for right ones (Zhai et al. 2023); summed over a query's targets: scalar.

    logits: (rows, rows), similarity over temperature plus bias; positive: (rows, rows) bool
    """
    sign = 2 * positive.to(logits.dtype) - 1
    return -F.logsigmoid(sign * logits).sum(dim=1).mean()


def affinity_loss(output: Tensor, answers: Tensor, temperature: float = 1.0) -> Tensor:
    """KL from the teachers' to the student's similarities, row by row and column by column, scaled by T**2.

    The affinity of TinyCLIP (Wu et al. 2023): embeddings of other widths can teach.  The mean of several teachers'
    distributions counts.  output: (batch, 2 · embedding); answers: (teachers, batch, 2 · theirs)
    """
    with torch.autocast(output.device.type, enabled=False):
        student = SCALE / temperature * similarity(output)
        taught = SCALE / temperature * torch.stack([similarity(answer) for answer in answers])
        losses = [
            F.kl_div(s.log_softmax(dim=-1), t.softmax(dim=-1).mean(dim=0), reduction="batchmean")
            for s, t in ((student, taught), (student.T, taught.transpose(1, 2)))
        ]
    return temperature**2 * torch.stack(losses).mean()


# from (rows, rows) scaled similarities, a scalar bias, (rows, rows) bool and the label smoothing to a scalar
CONTRASTS: dict[Contrast, Callable[[Tensor, Tensor, Tensor, float], Tensor]] = {
    "info_nce": info_nce_both_ways,
    "sigmoid": biased_sigmoid,
}
