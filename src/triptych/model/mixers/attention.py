"""Full attention (Vaswani et al. 2017): every token reads every other.  O(tokens² · dim) time."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar, final

import torch
from torch import Tensor
from torch.nn import functional

from triptych.model.config import BlockConfig, Precision
from triptych.model.dense import Dense
from triptych.model.mixers.mixer import Mixer
from triptych.tokens import Tokens


@final
class Attention(Mixer):
    """Multi-head self-attention; heavier tokens weigh log(weight) more (Bolya et al. 2023, eq. 1)."""

    repeats: ClassVar[Mapping[str, int]] = {"query_key_value": 3}
    any_tokens: ClassVar[bool] = True

    def __init__(self, dim: int, block: BlockConfig, grid: tuple[int, ...], precision: Precision) -> None:
        super().__init__(dim, block, grid, precision)
        self.heads, self.head_dim = block.heads, block.head_dim
        width = block.heads * block.head_dim
        self.query_key_value = Dense(dim, 3 * width, precision=precision)
        self.out = Dense(width, dim, precision=precision)

    def forward(self, tokens: Tokens) -> Tensor:
        """tokens.x: (batch, tokens, dim) → (batch, tokens, dim)"""
        query, key, value = self._split(tokens.x)
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=self._bias(tokens))
        out: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return out

    def received(self, tokens: Tokens) -> Tensor:
        """Mean attention that each token receives from the real ones: (batch, tokens)."""
        query, key, _ = self._split(tokens.x)
        logits = query @ key.transpose(-1, -2) / math.sqrt(self.head_dim)
        bias = self._bias(tokens)
        share = (logits if bias is None else logits + bias).softmax(dim=-1).mean(dim=1)
        real = tokens.real().to(share.dtype)
        return (share * real.unsqueeze(-1)).sum(dim=1) / real.sum(dim=1, keepdim=True).clamp(min=1)

    def keys(self, tokens: Tokens) -> Tensor:
        """Keys averaged over heads, the likeness that merging uses: (batch, tokens, head_dim)."""
        return self._split(tokens.x)[1].mean(dim=1)

    def _split(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        parts = self.query_key_value(x).unflatten(-1, (3, self.heads, self.head_dim)).permute(2, 0, 3, 1, 4)
        return parts[0], parts[1], parts[2]

    def _bias(self, tokens: Tokens) -> Tensor | None:
        if tokens.mask is None and tokens.weight is None:
            return None
        if tokens.mask is None:
            return tokens.weights().log()[:, None, None, :]
        barred = torch.full_like(tokens.x[:, :1, 0], -1e4)
        bias = torch.zeros_like(barred) if tokens.weight is None else tokens.weight.clamp(min=1e-6).log()
        return torch.where(tokens.mask, bias, barred)[:, None, None, :]
