"""What keeps a router from sending everything to one expert, in the weight that its paper uses."""

from __future__ import annotations

import torch
from torch import Tensor

from triptych.model.experts.routing import Routing

_BALANCE = 1e-2
_Z = 1e-3


def balance_loss(routing: Routing) -> Tensor:
    """α · experts · Σ f_e P_e (Fedus et al. 2022, Switch Transformers, eq. 4), α = 0.01: ().

    f_e: share of the working pairs that expert e has; P_e: mean score of e over the real tokens.  α where all are even.
    """
    experts = routing.scores.shape[1]
    working = routing.working().to(routing.scores.dtype)
    load = torch.zeros_like(routing.scores[0]).index_add(0, routing.expert, working)
    share = load / load.sum().clamp(min=1)
    return _BALANCE * experts * (share * mean_score(routing)).sum()


def mean_score(routing: Routing) -> Tensor:
    """Mean score of every expert over the real tokens: (experts,)."""
    total = routing.scores.sum(dim=0)
    return total / total.sum().clamp(min=1e-6)


def entropy(shares: Tensor) -> Tensor:
    """−Σ p ln p along the last axis, in nats; zero where all are zero.  shares: (..., experts) → (...)"""
    return -(shares * shares.clamp(min=1e-9).log()).sum(dim=-1)


def entropy_losses(scores: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
    """Local and global entropy loss of one modality's tokens (Mustafa et al. 2022, LIMoE, section 2.2), () both.

    Local: the mean entropy of a token's scores.  Global: max(0, threshold − entropy of the mean scores), so that the
    tokens together use at least exp(threshold) experts.  The formulas are recalled from the paper, not copied.

    scores: (tokens, experts), zero where a token is not real
    """
    total = scores.sum(dim=0)
    count = total.sum().clamp(min=1e-6)
    local = entropy(scores).sum() / count
    return local, (threshold - entropy(total / count)).clamp(min=0)


def z_loss(logits: Tensor, mask: Tensor | None) -> Tensor:
    """β · mean (log Σ exp logit)² over the real tokens (Zoph et al. 2022, ST-MoE, eq. 5), β = 0.001: ().

    logits: (batch, tokens, experts), mask: (batch, tokens) bool
    """
    square = logits.logsumexp(dim=-1).square()
    real = torch.ones_like(square) if mask is None else mask.to(square.dtype)
    return _Z * (square * real).sum() / real.sum().clamp(min=1)
