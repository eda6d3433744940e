"""The Laplace gate (Han et al. 2024, FuseMoE)."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

from triptych.model.config import BlockConfig
from triptych.model.experts.losses import balance_loss
from triptych.model.experts.routers.router import Router, token_choice
from triptych.model.experts.routing import Routing


@final
class Laplace(Router):
    """softmax(−‖x − w_e‖), of which every token takes the `active` largest.

    Distances in place of products: no expert wins merely because its vector is long.  The gate is recalled from
    FuseMoE, which applies the softmax after the choice; here `gates = 'normalised'` does that.

    places: w, (experts, dim)
    """

    def __init__(self, dim: int, block: BlockConfig) -> None:
        super().__init__(dim, block)
        self.places = nn.Parameter(torch.randn(block.experts, dim))  # about where normed tokens are
        self.active, self.normalised = block.active, block.gates == "normalised"

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Routing:
        """x: (batch, tokens, dim), mask: (batch, tokens) bool"""
        x, places = x.float(), self.places.float()
        square = x.square().sum(dim=-1, keepdim=True) - 2 * (x @ places.t()) + places.square().sum(dim=1)
        scores = (-square.clamp(min=1e-6).sqrt()).softmax(dim=-1)
        routing = token_choice(scores, mask, self.active, normalised=self.normalised)
        if self.training:
            self.add_auxiliary(balance_loss(routing))
        return routing
