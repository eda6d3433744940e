"""A shared perceptron with low-rank experts (Wu et al. 2024, Omni-SMoLA; Chen et al. 2024, LLaVA-MoLE)."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional

from triptych.model.channels.channel import Channel
from triptych.model.config import BlockConfig, Precision
from triptych.model.dense import Dense
from triptych.model.experts import Routing, make_router


@final
class LowRankExperts(Channel):
    """A perceptron whose two matrices are W + Σ gate_e · B_e A_e, with the experts that a token's router chose.

    B is zero at the start: a dense perceptron.  Ranks may differ (`ranks`: mixed-rank experts, small ones for easy
    tokens).  All experts' A and B lie side by side in one matrix each and the gates pick rows between them, which needs
    no dispatch: with R = Σ ranks it costs 2 R (dim + hidden) multiplications a token beside 2 dim · hidden of the
    perceptron, and sorting tokens would cost more than the few rows it saves.
    """

    def __init__(self, dim: int, block: BlockConfig, precision: Precision) -> None:
        super().__init__(dim, block, precision)
        ranks = block.ranks or (block.rank,) * block.experts
        self.router = make_router(dim, block)
        self.up = _Changed(dim, block.hidden, sum(ranks), precision)
        self.down = _Changed(block.hidden, dim, sum(ranks), precision)
        owner = [expert for expert, rank in enumerate(ranks) for _ in range(rank)]
        self.register_buffer("owner", torch.tensor(owner), persistent=False)
        self.owner: Tensor

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """x: (batch, tokens, dim), mask: (batch, tokens) bool → (batch, tokens, dim)"""
        gates = dense_gates(self.router(x, mask))[:, self.owner]
        gates = gates.reshape(*x.shape[:2], -1).to(x.dtype)
        out: Tensor = self.down(functional.gelu(self.up(x, gates)), gates)
        return out


@final
class _Changed(nn.Module):
    """W x + b + B (gates · A x)."""

    def __init__(self, inputs: int, outputs: int, rank: int, precision: Precision) -> None:
        super().__init__()
        self.whole = Dense(inputs, outputs, precision=precision)
        self.into = Dense(inputs, rank, precision=precision, bias=False)
        self.out = Dense(rank, outputs, precision=precision, bias=False)
        nn.init.zeros_(self.out.weight)

    def forward(self, x: Tensor, gates: Tensor) -> Tensor:
        """x: (batch, tokens, inputs), gates: (batch, tokens, rank) → (batch, tokens, outputs)"""
        out: Tensor = self.whole(x) + self.out(self.into(x) * gates)
        return out


def dense_gates(routing: Routing) -> Tensor:
    """What every expert counts for every token, zero where it does not work: (batch · tokens, experts)."""
    tokens, experts = routing.scores.shape
    gate = routing.gate if routing.kept is None else routing.gate * routing.kept
    place = routing.token * experts + routing.expert
    return gate.new_zeros(tokens * experts).scatter(0, place, gate).view(tokens, experts)
