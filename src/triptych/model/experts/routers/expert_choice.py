"""Expert choice (Zhou et al. 2022, Mixture-of-Experts with Expert Choice Routing; MoMa for multimodal tokens)."""

from __future__ import annotations

from typing import Any, final

import torch
from torch import Tensor

from triptych.model.config import BlockConfig
from triptych.model.dense import Dense
from triptych.model.experts.routers.router import Router
from triptych.model.experts.routing import Routing


@final
class ExpertChoice(Router):
    """Every expert takes the tokens that suit it best, equally many, so that no load has to be balanced.

    Of each example on its own, unlike the paper's, so that an answer does not depend on what else is in a batch:
    ⌈tokens · active / experts⌉ of its real tokens.  A token has `active` experts on average, perhaps none.  The gate is
    its score, softmax(W x).
    """

    def __init__(self, dim: int, block: BlockConfig) -> None:
        super().__init__(dim, block)
        self.score = Dense(dim, block.experts, bias=False)
        self.experts, self.active = block.experts, block.active

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Routing:
        """x: (batch, tokens, dim), mask: (batch, tokens) bool"""
        batch, tokens, _ = x.shape
        scores = self.score(x).float().softmax(dim=-1)
        ranked = scores if mask is None else scores.masked_fill(~mask.unsqueeze(-1), -1.0)
        most = self._share(tokens)
        gate, place = ranked.transpose(1, 2).topk(most, dim=2)
        row = torch.arange(batch, device=x.device).reshape(-1, 1, 1)
        expert = torch.arange(self.experts, device=x.device).reshape(1, -1, 1).expand_as(place)
        kept = None
        if mask is not None:
            real = mask.sum(dim=1).reshape(-1, 1, 1)
            rank = torch.arange(most, device=x.device)
            kept = (rank < self._share(real)).expand_as(place).flatten()
            scores = scores * mask.unsqueeze(-1)
        return Routing((row * tokens + place).flatten(), expert.flatten(), gate.flatten(), kept, scores.flatten(0, 1))

    def _share(self, tokens: Any) -> Any:
        """Tokens of one expert, as a number or a tensor like `tokens`."""
        return (tokens * self.active + self.experts - 1) // self.experts
