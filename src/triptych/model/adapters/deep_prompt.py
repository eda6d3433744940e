"""Deep prompts (Jia et al. 2022, deep VPT; after Li and Liang 2021, prefix tuning): P · dim numbers per block."""

from __future__ import annotations

from typing import ClassVar, final

import torch
from torch import nn

from triptych.model.adapters.adapter import BlocksAdapter
from triptych.model.adapters.prompt import prompted
from triptych.model.config import AdapterConfig, Precision
from triptych.model.encoder import Blocks
from triptych.tokens import Tokens


@final
class DeepPrompt(BlocksAdapter):
    """Learnt tokens of its own before every block, thrown away after it.

    Prefix tuning learns the keys and values that such tokens give in every layer; here the layer makes them.
    """

    adds_tokens: ClassVar[bool] = True

    def __init__(self, dim: int, depth: int, config: AdapterConfig, precision: Precision) -> None:
        super().__init__(dim, depth, config, precision)
        self.prompts = nn.Parameter(torch.randn(depth, config.prompts, dim) * 0.02)

    def forward(self, tokens: Tokens, blocks: Blocks) -> Tokens:
        """tokens.x: (batch, tokens, dim) → (batch, tokens, dim)"""
        for number, layer in enumerate(blocks.layers):
            tokens = prompted(tokens, self.prompts[number].expand(tokens.x.shape[0], -1, -1), layer)
        return tokens.with_x(blocks.norm(tokens.x))
