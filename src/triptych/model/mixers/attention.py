"""Full attention (Vaswani et al. 2017): every token reads every other.  O(tokens² · dim) time."""

from __future__ import annotations

from typing import ClassVar, final

from torch import Tensor
from torch.nn import functional

from triptych.model.mixers.multi_head import MultiHead, key_bias, shares
from triptych.tokens import Tokens


@final
class Attention(MultiHead):
    """Multi-head self-attention; heavier tokens weigh log(weight) more (Bolya et al. 2023, eq. 1)."""

    any_tokens: ClassVar[bool] = True

    def forward(self, tokens: Tokens) -> Tensor:
        """tokens.x: (batch, tokens, dim) → (batch, tokens, dim)"""
        query, key, value = self._split(tokens.x)
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=_bias(tokens))
        return self._joined(mixed)

    def received(self, tokens: Tokens) -> Tensor:
        """Mean attention that each token receives from the real ones: (batch, tokens)."""
        query, key, _ = self._split(tokens.x)
        share = shares(query, key, _bias(tokens)).mean(dim=1)
        real = tokens.real().to(share.dtype)
        return (share * real.unsqueeze(-1)).sum(dim=1) / real.sum(dim=1, keepdim=True).clamp(min=1)


def _bias(tokens: Tokens) -> Tensor | None:
    bias = key_bias(tokens)
    return None if bias is None else bias[:, None, None, :]
