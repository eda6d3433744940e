"""Conditional prompts (Zhou et al. 2022, CoCoOp): (P + 2 · r) · dim trained numbers per encoder."""

from __future__ import annotations

from typing import ClassVar, final

import torch
from torch import nn
from torch.nn import functional

from triptych.model.adapters.adapter import BlocksAdapter
from triptych.model.adapters.prompt import prompted
from triptych.model.config import AdapterConfig, Precision
from triptych.model.dense import Dense
from triptych.model.encoder import Blocks
from triptych.tokens import Tokens


@final
class ConditionalPrompt(BlocksAdapter):
    """Learnt tokens, all shifted by W₂ relu(W₁ f), where f is the mean of what the stem gives for this example.

    In the paper f is the image's feature and the prompt is the text's; here it is the modality's own, so that encoders
    stay stages that need nothing of each other.  The shift is zero at the start.
    """

    adds_tokens: ClassVar[bool] = True

    def __init__(self, dim: int, depth: int, config: AdapterConfig, precision: Precision) -> None:
        super().__init__(dim, depth, config, precision)
        self.prompts = nn.Parameter(torch.randn(config.prompts, dim) * 0.02)
        self.narrow = Dense(dim, config.rank, precision=precision)
        self.widen = Dense(config.rank, dim, precision=precision)
        nn.init.zeros_(self.widen.weight)

    def forward(self, tokens: Tokens, blocks: Blocks) -> Tokens:
        """tokens.x: (batch, tokens, dim) → (batch, tokens, dim)"""
        shift = self.widen(functional.relu(self.narrow(tokens.mean())))
        return prompted(tokens, self.prompts + shift.unsqueeze(1), blocks)
