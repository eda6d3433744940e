"""Objectives: a callable `(model, batch) -> scalar loss`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from triptych.errors import RecipeError, TrainingError
from triptych.schema import Schema
from triptych.tokens import Batch, Mix, Tokens
from triptych.train.config import TrainConfig
from triptych.train.contrastive import ContrastiveLoss, affinity_loss

if TYPE_CHECKING:
    from triptych.model.multimodal import Multimodal
    from triptych.train.balance.balance import Balance

Regression = Literal["huber", "mse"]


class Objective(Protocol):
    """What training minimises.  An objective that is also an `nn.Module` has its parameters trained along."""

    def __call__(self, model: Multimodal, batch: Batch) -> Tensor:
        """Loss of one batch: scalar."""


@dataclass(frozen=True)
class TaskLoss:
    """Cross-entropy, or a robust error in units of the target's spread; rows with unknown targets do not count.

    A network with exit heads pays `exit_weight` times their mean loss on top, each over the rows with its modality.
    """

    label_smoothing: float = 0.0
    class_weights: tuple[float, ...] = ()  # one per class; empty means all alike
    exit_weight: float = 0.3
    regression: Regression = "huber"
    balance: Balance | None = field(default=None, repr=False, compare=False)  # has the last word on the loss

    def __call__(self, model: Multimodal, batch: Batch) -> Tensor:
        """Encode once, decide once, and leave through every exit."""
        batch = batch.only(*model.schema.names)
        streams = model.encode_all(batch)
        return self.of(model, batch, streams, model.decide(streams))

    def of(self, model: Multimodal, batch: Batch, streams: Mapping[str, Tokens], output: Tensor) -> Tensor:
        """Loss of a forward pass that was already made.  output: (batch, outputs)"""
        if batch.target is None:
            raise TrainingError("a training batch needs targets; this one has none")
        loss = self._with_exits(model, batch, streams, output, batch.target)
        return (
            loss
            if self.balance is None
            else self.balance.loss(self, model, batch=batch, streams=streams, output=output, loss=loss)
        )

    def _with_exits(
        self, model: Multimodal, batch: Batch, streams: Mapping[str, Tokens], output: Tensor, target: Tensor
    ) -> Tensor:
        loss = self.rows(model.schema, output, target, mix=batch.mix)
        exits = [name for name in streams if name in model.exits] if self.exit_weight else []
        if not exits:
            return loss
        early = [
            self.rows(
                model.schema,
                model.exit(name, streams[name]),
                target,
                present=batch.present.get(name),
                mix=batch.mix,
            )
            for name in exits
        ]
        return loss + self.exit_weight * torch.stack(early).mean()

    def rows(
        self, schema: Schema, output: Tensor, target: Tensor, *, present: Tensor | None = None, mix: Mix | None = None
    ) -> Tensor:
        """Mean over the rows whose target is known (and, for an exit, whose modality is present).

        A mixed row counts for both its targets, by their shares (Zhang et al. 2018, mixup).
        output: (batch, outputs); target: (batch,); present: (batch,) bool
        """
        loss, weight = self.each(schema, output, target)
        if mix is not None:
            other, weight_other = self.each(schema, output, target[mix.partner])
            loss, weight = torch.cat([loss, other]), torch.cat([mix.share * weight, (1 - mix.share) * weight_other])
            present = None if present is None else torch.cat([present, present])
        weight = weight if present is None else weight * present
        return (loss * weight).sum() / weight.sum().clamp(min=1e-6)

    def by_row(self, schema: Schema, output: Tensor, target: Tensor, *, mix: Mix | None = None) -> Tensor:
        """Loss of each row, zero where the target is unknown: (batch,).  output: (batch, outputs); target: (batch,)"""
        loss, weight = self.each(schema, output, target)
        if mix is None:
            return loss * weight
        other, weight_other = self.each(schema, output, target[mix.partner])
        return mix.share * loss * weight + (1 - mix.share) * other * weight_other

    def each(self, schema: Schema, output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Loss and weight of each row: (batch,) both."""
        output = output.float()
        if schema.task == "classification":
            known, index = target >= 0, target.clamp(min=0)
            loss = F.cross_entropy(output, index, reduction="none", label_smoothing=self.label_smoothing)
            weight = output.new_tensor(self.class_weights)[index] if self.class_weights else torch.ones_like(loss)
        else:
            known = target.isfinite()
            loss = self._error((output.squeeze(1) - target.nan_to_num()) / schema.scale)
            weight = torch.ones_like(loss)
        return loss, known * weight

    def _error(self, residual: Tensor) -> Tensor:
        zero = torch.zeros_like(residual)
        return (F.huber_loss if self.regression == "huber" else F.mse_loss)(residual, zero, reduction="none")


Supervised = TaskLoss | ContrastiveLoss


def task_loss(config: TrainConfig, schema: Schema, targets: np.ndarray) -> Supervised:
    """The task's loss with the options of a training configuration.  targets: as in the training split

    Raises RecipeError for options that the task cannot use.
    """
    if config.class_weights and schema.task != "classification":
        raise RecipeError(f"class_weights needs a classification task; set it to False for {schema.task}")
    if schema.task == "retrieval":
        if config.modality_dropout or config.repair or config.incomplete:
            raise RecipeError(
                "retrieval learns from whole pairs as they are; set modality_dropout=0, incomplete=0 and repair=False"
            )
        return ContrastiveLoss(config.contrast, config.label_smoothing)
    weights = balanced_weights(targets, schema.outputs) if config.class_weights else ()
    return TaskLoss(config.label_smoothing, weights, config.exit_weight)


def plain_loss(schema: Schema) -> Supervised:
    """The task's loss without any option."""
    return ContrastiveLoss() if schema.task == "retrieval" else TaskLoss()


def balanced_weights(targets: np.ndarray, classes: int) -> tuple[float, ...]:
    """Inverse class frequencies whose mean over the known rows is one; a class without rows gets one."""
    counts = np.bincount(targets[targets >= 0], minlength=classes)
    used = counts[counts > 0]
    share = used.sum() / (len(used) * np.maximum(counts, 1))
    return tuple(float(s) if n else 1.0 for s, n in zip(share, counts, strict=True))


@dataclass(frozen=True, eq=False)
class Distillation:
    """Learn from frozen teachers as well as from the targets (Hinton et al. 2015, section 2).

    loss = alpha * T**2 * KL(teacher at T || student at T) + (1 - alpha) * task loss + feature_weight * similarity loss

    T**2 keeps the size of the soft gradient independent of the temperature.  Several teachers vote by the mean of
    their softened probabilities.  For regression the soft term is the squared distance to the teachers' mean value, in
    units of the target's spread; for retrieval it is `affinity_loss`.  Teachers see the same augmented rows, and
    modalities that the student lacks.

    `task` is filled in from the training configuration by `fit` when it is None.
    remembered: (teachers, training rows, outputs), answers given once, to rows as they are in the dataset; the teachers
    are then not asked again, which is much cheaper than asking them about every augmented row.
    """

    teacher: Multimodal | Sequence[Multimodal]
    alpha: float = 0.5
    temperature: float = 2.0
    feature_weight: float = 0.0
    task: Supervised | None = None
    remembered: Tensor | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.alpha <= 1:
            raise RecipeError(f"Distillation.alpha must be in [0, 1], got {self.alpha}")
        if self.temperature <= 0:
            raise RecipeError(f"Distillation.temperature must be positive, got {self.temperature}")
        if self.feature_weight < 0:
            raise RecipeError(f"Distillation.feature_weight must not be negative, got {self.feature_weight}")
        if not self.teachers:
            raise RecipeError("Distillation needs at least one teacher")
        if self.feature_weight and self.remembered is not None:
            raise RecipeError("matching features needs the teachers themselves: leave `remembered` out")

    @property
    def teachers(self) -> tuple[Multimodal, ...]:
        """The teachers, also when there is one."""
        return tuple(self.teacher) if isinstance(self.teacher, Sequence) else (self.teacher,)

    @property
    def modalities(self) -> frozenset[str]:
        """Names of the inputs that the teachers look at."""
        return frozenset(name for teacher in self.teachers for name in teacher.schema.names)

    def with_task(self, task: Supervised) -> Distillation:
        """The same distillation, with the task's loss unless it has one."""
        return self if self.task is not None else dataclasses.replace(self, task=task)

    def __call__(self, model: Multimodal, batch: Batch) -> Tensor:
        """Ask the teachers, then the student."""
        own = batch.only(*model.schema.names)
        streams = model.encode_all(own)
        output = model.decide(streams)
        answers, pooled = self.answers(model.schema, batch)
        loss = self.alpha * soft_loss(model.schema, output, answers, self.temperature)
        if self.alpha < 1:
            loss = loss + (1 - self.alpha) * (self.task or plain_loss(model.schema)).of(model, own, streams, output)
        if self.feature_weight:
            student = pool(streams)
            distances = [similarity_loss(student, teacher) for teacher in pooled]
            loss = loss + self.feature_weight * torch.stack(distances).mean()
        return loss

    def answers(self, schema: Schema, batch: Batch) -> tuple[Tensor, list[dict[str, Tensor]]]:
        """As `ask` gives, or what was remembered and no features."""
        return self.ask(batch) if self.remembered is None else (self.recall(schema, batch), [])

    def recall(self, schema: Schema, batch: Batch) -> Tensor:
        """Answers given once to these rows, mixed as the rows are: (teachers, batch, outputs)."""
        if self.remembered is None or batch.rows is None:
            raise TrainingError("remembered answers need batches that know their row numbers")
        answers = self.remembered[:, batch.rows]
        if batch.mix is None:
            return answers
        share = batch.mix.share[:, None]
        if schema.task == "regression":
            return share * answers + (1 - share) * answers[:, batch.mix.partner]
        chances = answers.softmax(dim=-1)
        return (share * chances + (1 - share) * chances[:, batch.mix.partner]).log()

    @torch.no_grad()
    def ask(self, batch: Batch) -> tuple[Tensor, list[dict[str, Tensor]]]:
        """Answers: (teachers, batch, outputs), and each teacher's pooled features (see `pool`)."""
        answers, pooled = [], []
        for teacher in self.teachers:
            teacher.eval()
            streams = teacher.encode_all(batch.only(*teacher.schema.names))
            answers.append(teacher.decide(streams).float())
            pooled.append(pool(streams))
        return torch.stack(answers), pooled


def soft_loss(schema: Schema, output: Tensor, answers: Tensor, temperature: float = 1.0) -> Tensor:
    """Distance from the teachers' answers, scaled by T**2.

    output: (batch, outputs); answers: (teachers, batch, outputs)
    """
    if schema.task == "retrieval":
        return affinity_loss(output, answers, temperature)
    if schema.task == "regression":
        return F.mse_loss(output.float() / schema.scale, answers.mean(dim=0) / schema.scale)
    soft = (answers / temperature).softmax(dim=-1).mean(dim=0)
    return temperature**2 * F.kl_div((output.float() / temperature).log_softmax(dim=-1), soft, reduction="batchmean")


def pool(streams: Mapping[str, Tokens]) -> dict[str, Tensor]:
    """Mean of each modality's tokens: (batch, dim)."""
    return {name: tokens.mean().float() for name, tokens in streams.items()}


def similarity_loss(student: Mapping[str, Tensor], teacher: Mapping[str, Tensor]) -> Tensor:
    """Squared distance between the rows' cosine similarities, over the modalities that both encode.

    Needs no projection between unequal widths (similarity-preserving distillation, Tung and Mori 2019, with cosines).
    student, teacher: (batch, dim) by modality, with any dim
    """
    shared = student.keys() & teacher.keys()
    if not shared:
        raise TrainingError(f"no modality in common: student {sorted(student)}, teacher {sorted(teacher)}")
    pairs = [(F.normalize(student[n], dim=1), F.normalize(teacher[n], dim=1)) for n in sorted(shared)]
    return torch.stack([F.mse_loss(s @ s.T, t @ t.T) for s, t in pairs]).mean()
