"""What S3 minimises, as functions of vectors and of router scores that know no network.

Vectors are of length one and a row is one example; `known` says which rows count, such as those that have the modality.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import permutations

import torch
from torch import Tensor

from triptych.model.experts.losses import entropy
from triptych.train.contrastive import info_nce

Vectors = Mapping[str, Tensor]  # (batch, dim) by modality, of length one
Known = Mapping[str, Tensor]  # (batch,) bool by modality


def contrast(queries: Tensor, answers: Tensor, positive: Tensor, known: Tensor, temperature: float) -> Tensor:
    """InfoNCE of the known rows (van den Oord et al. 2018); with several positives they share a query's mass (Khosla et
    al. 2020, SupCon, the form with the sum outside the logarithm): scalar, zero where fewer than two rows are known.

    queries, answers: (batch, dim) of length one; positive: (batch, batch) bool, the diagonal included; known: (batch,)
    """
    rows = known.nonzero().squeeze(1)
    if len(rows) < 2:
        return queries.sum() * 0
    logits = queries[rows].float() @ answers[rows].float().T / temperature
    return info_nce(logits, positive[rows][:, rows])


def within(first: Vectors, second: Vectors, positive: Tensor, known: Known, temperature: float) -> Tensor:
    """Mean over the modalities of `contrast` between two views of the same modality: scalar."""
    losses = [contrast(first[m], second[m], positive, known[m], temperature) for m in first]
    return torch.stack(losses).mean()


def across(first: Vectors, second: Vectors, positive: Tensor, known: Known, temperature: float) -> Tensor:
    """Mean over the ordered pairs of modalities of `contrast` from one's first view to the other's second: scalar.

    Zero with a single modality.
    """
    pairs = list(permutations(first, 2))
    if not pairs:
        return torch.stack([x.sum() for x in first.values()]).sum() * 0
    losses = [contrast(first[m], second[n], positive, known[m] & known[n], temperature) for m, n in pairs]
    return torch.stack(losses).mean()


def same_label(labels: Tensor) -> Tensor:
    """Which rows are right answers to each other: those of one label, and every row to itself.

    labels: (batch,) int64, -1 where unknown → (batch, batch) bool
    """
    known = labels >= 0
    alike = (labels.unsqueeze(0) == labels.unsqueeze(1)) & known.unsqueeze(0) & known.unsqueeze(1)
    return alike | torch.eye(len(labels), dtype=torch.bool, device=labels.device)


def minimality(vectors: Vectors, known: Known) -> Tensor:
    """−E⟨μ_x, μ̂_y⟩ over the ordered pairs of modalities and the rows that have both: scalar in [−1, 1].

    What one modality's vector holds beyond what the other one predicts is superfluous; with vectors of length one the
    Gaussian bound on that information is this product up to constants.  The hat marks the vector that predicts: it is
    held fixed (our reading; the equation is known second-hand).
    """
    pairs = list(permutations(vectors, 2))
    if not pairs:
        return torch.stack([x.sum() for x in vectors.values()]).sum() * 0
    losses = []
    for m, n in pairs:
        both = (known[m] & known[n]).to(vectors[m].dtype)
        alike = (vectors[m] * vectors[n].detach()).sum(dim=1)
        losses.append(-(alike * both).sum() / both.sum().clamp(min=1))
    return torch.stack(losses).mean()


def routing_loss(scores: Tensor) -> Tensor:
    """Confident and balanced routing: (mean entropy of a token's scores − entropy of the mean score) / ln experts.

    Minus the share of what could be known of the expert that the token tells: −1 where every token is sure and all
    experts have the same load, 0 where the token makes no difference (collapse, or no decision): scalar in [−1, 0].

    scores: (tokens, experts), adding up to one for a real token and to zero for padding
    """
    real = scores.sum(dim=1)
    mean = scores.sum(dim=0) / real.sum().clamp(min=1e-6)
    each = (entropy(scores) * real).sum() / real.sum().clamp(min=1e-6)
    loss: Tensor = (each - entropy(mean)) / math.log(max(2, scores.shape[1]))
    return loss
