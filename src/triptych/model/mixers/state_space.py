"""Selective state space (Gu & Dao 2023, Mamba: its S6 core): a linear system whose step and ports read the token.

O(tokens · width · state) time for a whole sequence, O(width · state) time and memory for one more token.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import ClassVar, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from triptych.model.config import BlockConfig, Precision
from triptych.model.dense import Dense
from triptych.model.mixers.mixer import WithoutAttention
from triptych.model.mixers.pieces import joined, pieces
from triptych.model.mixers.scan import linear_scan
from triptych.tokens import Tokens

Advance = Callable[[Tensor, Tensor], Tensor]  # decay, added → state


@final
class StateSpace(WithoutAttention):
    """h' = −rate · h + B · v held over a step Δ, answer C·h + skip · v, gated; Δ, B and C are linear in the token.

    Every channel of `heads` · `head_dim` has `state` decaying states; a head's channels share what Δ reads.  A token of
    weight w lasts w times as long, which is as w equal tokens in a row; one that is not real takes no time.
    """

    repeats: ClassVar[Mapping[str, int]] = {"value_gate": 2}

    def __init__(self, dim: int, block: BlockConfig, grid: tuple[int, ...], precision: Precision) -> None:
        super().__init__(dim, block, grid, precision)
        self.head_dim = block.head_dim
        width = block.heads * block.head_dim
        self.value_gate = Dense(dim, 2 * width, precision=precision)
        self.step_size = Dense(dim, block.heads, precision=precision, bias=False)
        self.ports = Dense(dim, 2 * block.state, precision=precision, bias=False)
        shortest, longest = (math.log(math.expm1(step)) for step in (0.01, 0.5))  # what softplus maps to these
        self.step_bias = nn.Parameter(torch.linspace(shortest, longest, width))
        self.log_rate = nn.Parameter(torch.arange(1.0, 1 + block.state).log().repeat(width, 1))
        self.skip = nn.Parameter(torch.ones(width))
        self.out = Dense(width, dim, precision=precision)

    def forward(self, tokens: Tokens) -> Tensor:
        """tokens.x: (batch, tokens, dim) → (batch, tokens, dim)"""
        answers: list[Tensor] = []
        state = None
        for piece in pieces(tokens, self.log_rate.numel()):
            weighs = piece.mask is not None or piece.weight is not None
            answer, states = self._run(piece.x, piece.weights() if weighs else None, partial(_scan, before=state))
            answers.append(answer)
            state = states[:, -1]
        return joined(answers)

    def step(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """One more token, after the ones that led to `state`; None at the start.

        x: (batch, dim), state: (batch, width, state) → answer (batch, dim), new state
        """
        return self._run(x, None, lambda decay, added: added if state is None else decay * state + added)

    def _run(self, x: Tensor, weight: Tensor | None, advance: Advance) -> tuple[Tensor, Tensor]:
        """x: (..., dim), weight: (...) → (..., dim) and the states (..., width, state)"""
        value, gate = self.value_gate(x).chunk(2, dim=-1)
        write, read = self.ports(x).chunk(2, dim=-1)
        rate = self.log_rate.exp()
        decay = torch.exp(-self._lasting(x, weight).unsqueeze(-1) * rate)
        held = (1 - decay) / rate  # what a step-long input of one leaves behind
        state = advance(decay, held * write.unsqueeze(-2) * value.unsqueeze(-1))
        found = (state @ read.unsqueeze(-1)).squeeze(-1) + self.skip * value
        return self.out(found * functional.silu(gate)), state

    def _lasting(self, x: Tensor, weight: Tensor | None) -> Tensor:
        """How long each channel's system runs on a token, Δ: (..., width).  x: (..., dim), weight: (...)"""
        bias = torch.unflatten(self.step_bias, 0, (-1, self.head_dim))
        step = functional.softplus(self.step_size(x).unsqueeze(-1) + bias).flatten(-2)
        return step if weight is None else step * weight.unsqueeze(-1)


def _scan(decay: Tensor, added: Tensor, before: Tensor | None) -> Tensor:
    """decay, added: (batch, tokens, width, state), before: (batch, width, state) → (batch, tokens, width, state)"""
    start = None if before is None else before.flatten(1)
    return torch.unflatten(linear_scan(decay.flatten(2), added.flatten(2), start), 2, decay.shape[2:])
