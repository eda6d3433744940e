"""Token choice (Shazeer et al. 2017, Outrageously Large Neural Networks; Fedus et al. 2022, Switch Transformers)."""

from __future__ import annotations

from typing import final

from torch import Tensor

from triptych.model.config import BlockConfig
from triptych.model.dense import Dense
from triptych.model.experts.losses import balance_loss, z_loss
from triptych.model.experts.routers.router import Router, token_choice
from triptych.model.experts.routing import Routing


@final
class TopK(Router):
    """softmax(W x), of which every token takes the `active` largest."""

    def __init__(self, dim: int, block: BlockConfig) -> None:
        super().__init__(dim, block)
        self.score = Dense(dim, block.experts, bias=False)
        self.active, self.normalised = block.active, block.gates == "normalised"

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Routing:
        """x: (batch, tokens, dim), mask: (batch, tokens) bool"""
        logits = self.score(x)
        routing = token_choice(logits.float().softmax(dim=-1), mask, self.active, normalised=self.normalised)
        if self.training:
            self.add_auxiliary(balance_loss(routing) + z_loss(logits.float(), mask))
        return routing
