"""What every router is."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from triptych.model.auxiliary import Auxiliary
from triptych.model.config import BlockConfig
from triptych.model.experts.routing import Routing


class Router(Auxiliary, ABC):
    """Says which experts work on which tokens.

    A router stays in float32 whatever the precision of the network: it is small, and rounding would not blur its answer
    but send a token to another expert.  Its auxiliary loss adds up over the forward passes of a step, since modalities
    that share a block go through it one by one; `take_auxiliary` takes it.
    """

    @abstractmethod
    def __init__(self, dim: int, block: BlockConfig) -> None:
        super().__init__()

    @abstractmethod
    def forward(self, x: Tensor, mask: Tensor | None = None) -> Routing:
        """x: (batch, tokens, dim), mask: (batch, tokens) bool, None if all are real"""

    def add_auxiliary(self, loss: Tensor) -> None:
        """Add to the step's auxiliary loss, while training.  loss: ()"""
        if self.training and torch.is_grad_enabled():
            self.auxiliary = loss if self.auxiliary is None else self.auxiliary + loss


def token_choice(scores: Tensor, mask: Tensor | None, active: int, *, normalised: bool) -> Routing:
    """Every token takes its `active` best experts; the gates are their scores.

    scores: (batch, tokens, experts); mask: (batch, tokens) bool, padding takes none
    normalised: whether a token's gates are divided by their sum
    """
    scores = scores.flatten(0, 1)
    best, expert = scores.topk(active, dim=1)
    if normalised:
        best = best / best.sum(dim=1, keepdim=True)
    token = torch.arange(scores.shape[0], device=scores.device).unsqueeze(1).expand(-1, active)
    kept = None
    if mask is not None:
        real = mask.flatten().unsqueeze(1)
        scores, kept = scores * real, real.expand(-1, active).flatten()
    return Routing(token.flatten(), expert.flatten(), best.flatten(), kept, scores)
