"""Who works on what: the pairs of a token and an expert that a router chose."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Routing:
    """Pairs of a token and an expert, in any order.  Tokens are counted over the whole batch: row · tokens + place.

    token:  (pairs,) int64
    expert: (pairs,) int64
    gate:   (pairs,) what the expert's answer counts
    kept:   (pairs,) bool, pairs that are worked on; the others cost nothing and add nothing.  None means all
    scores: (batch · tokens, experts) how well each expert suits each token; adds up to one for a real token and to
            zero for padding
    """

    token: Tensor
    expert: Tensor
    gate: Tensor
    kept: Tensor | None
    scores: Tensor

    def only(self, chosen: Tensor) -> Self:
        """The same pairs, of which fewer are worked on.  chosen: (pairs,) bool"""
        return replace(self, kept=chosen if self.kept is None else self.kept & chosen)

    def working(self) -> Tensor:
        """Pairs that are worked on, as a tensor: (pairs,) bool."""
        return torch.ones_like(self.token, dtype=torch.bool) if self.kept is None else self.kept

    def by_expert(self) -> tuple[Tensor, Tensor]:
        """An order in which every expert's pairs lie together, those left out last, and how many each expert works on.

        (pairs,) int64 and (experts,) int64
        """
        experts, pairs = self.scores.shape[1], self.token.shape[0]
        key = self.expert if self.kept is None else torch.where(self.kept, self.expert, experts)
        place = torch.arange(pairs, device=key.device)
        order = (key * pairs + place).argsort()  # no two keys are equal, so every runtime finds the same order
        bins = experts if self.kept is None else experts + 1
        counts = key.new_zeros(bins).scatter_add(0, key, torch.ones_like(key))
        return order, counts if self.kept is None else counts[:experts]
