"""The losses of S3 and of its controls as one objective: a weighted sum over two views of each row."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from triptych.errors import RecipeError, TrainingError
from triptych.model.experts.statistics import watched_routers
from triptych.schema import Schema
from triptych.tokens import Batch
from triptych.train.augment import Augmentation
from triptych.train.s3.losses import across, minimality, routing_loss, same_label, within

if TYPE_CHECKING:
    from triptych.model.multimodal import Multimodal

_QUARTILE = 0.674  # of a normal distribution, in units of its spread


@final
@dataclass(frozen=True)
class Weights:
    """What an objective counts; a term of weight zero is not computed.

    represent:    λ_rep, InfoNCE between two views of a modality
    discriminate: λ_dsc, InfoNCE from one modality to another
    route:        λ_aux, confident and balanced routing
    suffice:      λ_suff, SupCon from one modality to another, rows of one label being right answers
    group:        SupCon between two views of a modality
    minimal:      λ_min, −E⟨μ_x, μ̂_y⟩
    """

    represent: float = 0.0
    discriminate: float = 0.0
    route: float = 0.0
    suffice: float = 0.0
    group: float = 0.0
    minimal: float = 0.0

    def __post_init__(self) -> None:
        values = dataclasses.asdict(self)
        if min(values.values()) < 0 or not any(values.values()):
            raise RecipeError(f"weights must not be negative, and not all zero, got {values}")


SPECIALISE = Weights(represent=1.0, discriminate=1.0, route=0.1)
SELECT = Weights(suffice=1.0, minimal=0.5)


@final
@dataclass(frozen=True)
class Views:
    """Every row twice, changed at random each time: one view is the first half of the new batch, one the second."""

    augment: Augmentation

    def __call__(self, batch: Batch, generator: Generator) -> Batch:
        """Draw both views."""
        first, second = (self.augment(batch, generator) for _ in range(2))
        target, rows = (None if part is None else torch.cat([part, part]) for part in (batch.target, batch.rows))
        return Batch(
            {name: torch.cat([x, second.inputs[name]]) for name, x in first.inputs.items()},
            {name: torch.cat([here, second.present[name]]) for name, here in first.present.items()},
            target,
            rows,
        )


@final
@dataclass(frozen=True)
class Alignment:
    """Objective of `fit` on batches of `Views`.

    temperature: of every contrast
    """

    weights: Weights = SPECIALISE
    temperature: float = 0.1

    def __post_init__(self) -> None:
        if self.temperature <= 0:
            raise RecipeError(f"the temperature must be above zero, got {self.temperature}")

    def __call__(self, model: Multimodal, batch: Batch) -> Tensor:
        """Loss of one batch: scalar.  Raises TrainingError where labels are wanted and the batch has none."""
        with watched_routers(model) as routings:
            vectors, known = modality_vectors(model, batch.only(*model.schema.names))
        terms = self.terms(vectors, known, self._labels(model.schema, batch))
        if self.weights.route and routings:
            scores = [torch.cat([routing.scores for routing in found]) for found in routings.values()]
            terms.append(self.weights.route * torch.stack([routing_loss(s) for s in scores]).mean())
        return torch.stack(terms).sum()

    def terms(self, vectors: dict[str, Tensor], known: dict[str, Tensor], labels: Tensor | None) -> list[Tensor]:
        """Every weighted term but that of the routing: scalars.

        vectors: (2 · batch, dim), known: (2 · batch,) bool, both by modality; labels: (batch,) int64
        """
        w, t = self.weights, self.temperature
        first, second = ({name: x.chunk(2)[half] for name, x in vectors.items()} for half in range(2))
        here = {name: k.chunk(2)[0] for name, k in known.items()}
        rows = len(next(iter(first.values())))
        own = torch.eye(rows, dtype=torch.bool, device=next(iter(first.values())).device)
        terms = []
        if w.represent:
            terms.append(w.represent * within(first, second, own, here, t))
        if w.discriminate:
            terms.append(w.discriminate * across(first, second, own, here, t))
        if w.minimal:
            terms.append(w.minimal * minimality(first, here))
        if labels is not None:
            labelled = {name: k & (labels >= 0) for name, k in here.items()}
            alike = same_label(labels)
            terms += [w.suffice * across(first, second, alike, labelled, t)] if w.suffice else []
            terms += [w.group * within(first, second, alike, labelled, t)] if w.group else []
        return terms

    def _labels(self, schema: Schema, batch: Batch) -> Tensor | None:
        if not (self.weights.suffice or self.weights.group):
            return None
        if batch.target is None:
            raise TrainingError("selecting needs targets, and this batch has none; give the split a target")
        return labels_of(schema, batch.target.chunk(2)[0])


def labels_of(schema: Schema, target: Tensor) -> Tensor:
    """Classes of a target: its own; of a value its sign (acc2, zero being unknown) or else its quarter of a normal
    distribution with the training rows' mean and spread.

    target: (batch,) → (batch,) int64, -1 where unknown
    """
    if schema.task == "classification":
        return target
    value = target.nan_to_num()
    if schema.metric == "acc2":
        return torch.where(target.isfinite() & (target != 0), (value > 0).long(), -1)
    edges = schema.center + schema.scale * _QUARTILE * torch.tensor([-1.0, 0.0, 1.0], device=target.device)
    return torch.where(target.isfinite(), torch.bucketize(value, edges), -1)


def modality_vectors(model: Multimodal, batch: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The mean of each modality's tokens at length one, and which rows have the modality.

    (batch, dim) and (batch,) bool by modality; the vector of a row without it is zero
    """
    streams = model.encode_all(batch)
    vectors = {name: F.normalize(tokens.mean().float(), dim=1) for name, tokens in streams.items()}
    known = {name: tokens.real().any(dim=1) for name, tokens in streams.items()}
    return {name: x * known[name].unsqueeze(1) for name, x in vectors.items()}, known
