"""The pooling head of SigLIP (Zhai et al. 2023): one learnt query reads all tokens."""

from __future__ import annotations

from typing import final

from torch import Tensor, nn
from torch.nn import functional

from triptych.model.backbones.layer import ACTIVATIONS, LayerSizes
from triptych.model.config import Precision
from triptych.model.dense import Dense, Embedding


@final
class AttentionPool(nn.Module):
    """Attention of a learnt query, then a perceptron with a norm before it and a way around it."""

    def __init__(self, sizes: LayerSizes, precision: Precision) -> None:
        super().__init__()
        width, hidden = sizes.width, sizes.hidden
        self.heads, self.activation = sizes.heads, ACTIVATIONS[sizes.activation]
        self.probe = Embedding(1, width, precision=precision)
        self.query = Dense(width, width, precision=precision)
        self.key_value = Dense(width, 2 * width, precision=precision)
        self.out = Dense(width, width, precision=precision)
        self.norm = nn.LayerNorm(width, eps=sizes.epsilon)
        self.up = Dense(width, hidden, precision=precision)
        self.down = Dense(hidden, width, precision=precision)

    def forward(self, x: Tensor) -> Tensor:
        """x: (batch, tokens, width) → (batch, 1, width)"""
        key, value = self.key_value(x).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        query = self.query(self.probe.rows(1)).unflatten(-1, (self.heads, -1)).transpose(0, 1)
        query = query.expand(x.shape[0], -1, -1, -1)
        mixed = functional.scaled_dot_product_attention(query, key, value)
        pooled: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        out: Tensor = pooled + self.down(self.activation(self.up(self.norm(pooled))))
        return out
