"""Prompt tuning (Lester et al. 2021; Jia et al. 2022, shallow VPT): P · dim trained numbers per encoder."""

from __future__ import annotations

from typing import ClassVar, final

import torch
from torch import Tensor, nn

from triptych.model.adapters.adapter import BlocksAdapter
from triptych.model.config import AdapterConfig, Precision
from triptych.model.encoder import Blocks
from triptych.model.fusion.present import concat
from triptych.tokens import Tokens


@final
class Prompt(BlocksAdapter):
    """Learnt tokens before the others, from the first block to the last; what follows sees the others only."""

    adds_tokens: ClassVar[bool] = True

    def __init__(self, dim: int, depth: int, config: AdapterConfig, precision: Precision) -> None:
        super().__init__(dim, depth, config, precision)
        self.prompts = nn.Parameter(torch.randn(config.prompts, dim) * 0.02)

    def forward(self, tokens: Tokens, blocks: Blocks) -> Tokens:
        """tokens.x: (batch, tokens, dim) → (batch, tokens, dim)"""
        return prompted(tokens, self.prompts.expand(tokens.x.shape[0], -1, -1), blocks)


def prompted(tokens: Tokens, prompts: Tensor, blocks: nn.Module) -> Tokens:
    """What blocks give for tokens that see prompts before them.  prompts: (batch, prompts, dim)"""
    out: Tokens = blocks(concat([Tokens(prompts), tokens]))
    return tokens.with_x(out.x[:, prompts.shape[1] :])
