"""Gated linear recurrence (Feng et al. 2024, minGRU): a GRU whose gates do not read its state.

O(tokens · width · dim) time for a whole sequence, O(width · dim) time and memory for one more token.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, final

import torch
from torch import Tensor
from torch.nn import functional

from triptych.model.config import BlockConfig, Precision
from triptych.model.dense import Dense
from triptych.model.mixers.mixer import WithoutAttention
from triptych.model.mixers.pieces import joined, pieces
from triptych.model.mixers.scan import linear_scan
from triptych.tokens import Tokens


@final
class Recurrent(WithoutAttention):
    """h_t = (1 − z_t) · h_{t−1} + z_t · v_t with gate z and candidate v linear in the token; tokens read earlier ones.

    A token of weight w counts as w equal tokens in a row, one that is not real as none.
    """

    repeats: ClassVar[Mapping[str, int]] = {"gate_value": 2}

    def __init__(self, dim: int, block: BlockConfig, grid: tuple[int, ...], precision: Precision) -> None:
        super().__init__(dim, block, grid, precision)
        width = block.heads * block.head_dim
        self.gate_value = Dense(dim, 2 * width, precision=precision)
        self.out = Dense(width, dim, precision=precision)

    def forward(self, tokens: Tokens) -> Tensor:
        """tokens.x: (batch, tokens, dim) → (batch, tokens, dim)"""
        answers: list[Tensor] = []
        state = None
        for piece in pieces(tokens, self.out.weight.shape[1]):
            weighs = piece.mask is not None or piece.weight is not None
            states = linear_scan(*self._terms(piece.x, piece.weights() if weighs else None), state)
            answers.append(self.out(states))
            state = states[:, -1]
        return joined(answers)

    def step(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """One more token.  x: (batch, dim), state: (batch, width), None at the start → answer (batch, dim), state"""
        decay, added = self._terms(x, None)
        state = added if state is None else decay * state + added
        return self.out(state), state

    def _terms(self, x: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor]:
        """What the state is multiplied by, and what is added: (..., width) each.  x: (..., dim), weight: (...)"""
        gate, value = self.gate_value(x).chunk(2, dim=-1)
        log_decay = -functional.softplus(gate)  # log(1 − sigmoid)
        decay = torch.exp(log_decay if weight is None else log_decay * weight.unsqueeze(-1))
        return decay, (1 - decay) * value
