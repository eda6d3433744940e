"""A mixture of experts in place of the perceptron (Shazeer et al. 2017; in multimodal networks LIMoE, MoE-LLaVA)."""

from __future__ import annotations

from typing import final

from torch import Tensor

from triptych.model.channels.channel import Channel
from triptych.model.config import BlockConfig, Precision
from triptych.model.experts import ExpertMlps, make_router
from triptych.model.experts.sparsify import sparsified


@final
class Experts(Channel):
    """`experts` perceptrons dim → hidden → dim; each token's answer is the gated sum over those that its router chose.

    Parameters grow with `experts`, time with `active`.  A token that no expert works on gets zeros.
    """

    def __init__(self, dim: int, block: BlockConfig, precision: Precision) -> None:
        super().__init__(dim, block, precision)
        self.router = make_router(dim, block)
        self.routes = block.routes
        self.mlps = ExpertMlps(block.experts, dim, block.hidden, precision)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """x: (batch, tokens, dim), mask: (batch, tokens) bool → (batch, tokens, dim), zero where a token is not real"""
        routing = self.router(x, mask)
        routing = routing if self.routes is None else sparsified(routing, self.routes, x.shape[0])
        out: Tensor = self.mlps(x.flatten(0, 1), routing)
        return out.view_as(x)
