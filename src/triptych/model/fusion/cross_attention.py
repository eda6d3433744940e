"""Attention from one sequence to another, exact or linear, shared by the fusions that exchange tokens."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import final

from torch import Tensor, nn
from torch.nn import functional

from triptych.model.channels import CHANNELS
from triptych.model.config import BlockConfig, Precision
from triptych.model.dense import Dense
from triptych.model.mixers.multi_head import key_bias
from triptych.tokens import Tokens


class CrossAttention(nn.Module, ABC):
    """Every token of one sequence reads another one, in several heads.

    Key and value of a head lie side by side, so that pruning cuts a head in one piece.
    """

    def __init__(self, dim: int, block: BlockConfig, precision: Precision) -> None:
        super().__init__()
        self.heads, self.head_dim = block.heads, block.head_dim
        width = block.heads * block.head_dim
        self.query = Dense(dim, width, precision=precision)
        self.key_value = Dense(dim, 2 * width, precision=precision)
        self.out = Dense(width, dim, precision=precision)

    def forward(self, x: Tensor, source: Tokens) -> Tensor:
        """x: (batch, tokens, dim), source.x: (batch, others, dim) → (batch, tokens, dim)

        Zero in the rows whose source holds no real token.
        """
        query = self.query(x).unflatten(-1, (self.heads, self.head_dim)).transpose(1, 2)
        pairs = self.key_value(source.x).unflatten(-1, (self.heads, 2, self.head_dim)).permute(3, 0, 2, 1, 4)
        read = self.read(query, pairs[0], pairs[1], source)
        out: Tensor = self.out(read.transpose(1, 2).flatten(2))
        return out if source.mask is None else out * source.some().unsqueeze(2)

    @abstractmethod
    def read(self, query: Tensor, key: Tensor, value: Tensor, source: Tokens) -> Tensor:
        """query: (batch, heads, tokens, head_dim), key, value: (batch, heads, others, head_dim) → like query"""


@final
class ExactCrossAttention(CrossAttention):
    """Softmax attention (Vaswani et al. 2017).

    O(N · M · dim) time: 'Dense Cross-Attention' of the survey's Table 1.
    """

    def read(self, query: Tensor, key: Tensor, value: Tensor, source: Tokens) -> Tensor:
        """query: (batch, heads, tokens, head_dim), key, value: (batch, heads, others, head_dim) → like query"""
        bias = key_bias(source)
        bias = None if bias is None else bias[:, None, None, :]
        return functional.scaled_dot_product_attention(query, key, value, attn_mask=bias)


@final
class LinearCrossAttention(CrossAttention):
    """φ(q)·Σ w φ(k) vᵀ / φ(q)·Σ w φ(k) with φ(x) = elu(x) + 1 and token weights w (Katharopoulos et al. 2020).

    O((N + M) · dim · head_dim) time: 'Linear Attention' of the survey's Table 1.
    """

    def read(self, query: Tensor, key: Tensor, value: Tensor, source: Tokens) -> Tensor:
        """query: (batch, heads, tokens, head_dim), key, value: (batch, heads, others, head_dim) → like query"""
        query, key = functional.elu(query) + 1, functional.elu(key) + 1
        if source.mask is not None or source.weight is not None:
            key = key * source.weights()[:, None, :, None]
        total = query @ key.sum(dim=2).unsqueeze(-1)
        return query @ (key.transpose(-1, -2) @ value) / total.clamp(min=1e-6)


@final
class Reading(nn.Module):
    """x + attention(norm x, norm source): a residual step of cross-attention."""

    def __init__(
        self, dim: int, block: BlockConfig, attention: type[CrossAttention], *, precision: Precision, dropout: float
    ) -> None:
        super().__init__()
        self.norm, self.source_norm = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attention = attention(dim, block, precision)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tokens, source: Tokens) -> Tokens:
        """tokens.x: (batch, tokens, dim), source.x: (batch, others, dim) → (batch, tokens, dim)"""
        read = self.attention(self.norm(tokens.x), source.with_x(self.source_norm(source.x)))
        return tokens.with_x(tokens.x + self.dropout(read))


@final
class CrossBlock(nn.Module):
    """A reading step, then x + channel(norm x): the layer of a crossmodal transformer (Tsai et al. 2019)."""

    def __init__(self, dim: int, block: BlockConfig, *, precision: Precision, dropout: float) -> None:
        super().__init__()
        self.reading = Reading(dim, block, ExactCrossAttention, precision=precision, dropout=dropout)
        self.channel_norm = nn.LayerNorm(dim)
        self.channel = CHANNELS[block.channel](dim, block, precision)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tokens, source: Tokens) -> Tokens:
        """tokens.x: (batch, tokens, dim), source.x: (batch, others, dim) → (batch, tokens, dim)"""
        tokens = self.reading(tokens, source)
        return tokens.with_x(tokens.x + self.dropout(self.channel(self.channel_norm(tokens.x), tokens.mask)))
