"""Entropy losses for each modality (Mustafa et al. 2022, LIMoE)."""

from __future__ import annotations

import math
from typing import final

from torch import Tensor

from triptych.model.config import BlockConfig
from triptych.model.dense import Dense
from triptych.model.experts.losses import entropy_losses, z_loss
from triptych.model.experts.routers.router import Router, token_choice
from triptych.model.experts.routing import Routing

_WEIGHT = 0.04


@final
class ModalityAware(Router):
    """softmax(W x), of which every token takes the `active` largest, with entropy losses in place of a balance loss.

    Balancing over all modalities together drives a rare modality's tokens to any expert that has room.  Instead each
    token is to be sure (local loss), and each modality as a whole is to use several experts (global loss), but only as
    many as it needs: at least the square root of their number, the threshold's exponential; see `entropy_losses`.

    Encoders and shared blocks see one modality at a time, so every call is one modality's.  In a trunk over all tokens
    the losses take them for one modality.
    """

    def __init__(self, dim: int, block: BlockConfig) -> None:
        super().__init__(dim, block)
        self.score = Dense(dim, block.experts, bias=False)
        self.active, self.normalised = block.active, block.gates == "normalised"
        self.threshold = math.log(block.experts) / 2

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Routing:
        """x: (batch, tokens, dim) of one modality, mask: (batch, tokens) bool"""
        logits = self.score(x).float()
        routing = token_choice(logits.softmax(dim=-1), mask, self.active, normalised=self.normalised)
        if self.training:
            local, whole = entropy_losses(routing.scores, self.threshold)
            self.add_auxiliary(_WEIGHT * (local + whole) + z_loss(logits, mask))
        return routing
