"""Linear attention (Katharopoulos et al. 2020): a feature map for softmax.  O(tokens · head_dim · dim) time."""

from __future__ import annotations

from typing import ClassVar, final

from torch import Tensor
from torch.nn import functional

from triptych.model.mixers.multi_head import MultiHead, mean_over_real
from triptych.model.mixers.pieces import joined, pieces, summed
from triptych.tokens import Tokens

_LEAST = 1e-6  # of what a query gives all keys together


@final
class Linear(MultiHead):
    """Σ_j φ(q_i)·φ(k_j) v_j / Σ_j φ(q_i)·φ(k_j) with φ = elu + 1; a token of weight w counts as w tokens."""

    any_tokens: ClassVar[bool] = True

    def forward(self, tokens: Tokens) -> Tensor:
        """tokens.x: (batch, tokens, dim) → (batch, tokens, dim)"""
        queries: list[Tensor] = []
        held: list[Tensor] = []
        sums: list[Tensor] = []
        for piece in pieces(tokens, self.query_key_value.weight.shape[0]):
            query, key, value = self._features(piece)
            queries.append(query)
            held.append(key.transpose(-1, -2) @ value)
            sums.append(key.sum(dim=2))
        whole, total = summed(held), summed(sums).unsqueeze(-1)
        return joined([self._joined(query @ whole / (query @ total).clamp(min=_LEAST)) for query in queries])

    def received(self, tokens: Tokens) -> Tensor:
        """Mean attention that each token receives from the real ones, in linear time too: (batch, tokens)."""
        query, key, _ = self._features(tokens)
        asked = query / (query @ key.sum(dim=2).unsqueeze(-1)).clamp(min=_LEAST) * tokens.real()[:, None, :, None]
        return mean_over_real((key @ asked.sum(dim=2).unsqueeze(-1)).squeeze(-1), tokens)

    def _features(self, tokens: Tokens) -> tuple[Tensor, Tensor, Tensor]:
        query, key, value = self._split(tokens.x)
        query, key = functional.elu(query) + 1, functional.elu(key) + 1
        if tokens.mask is not None or tokens.weight is not None:
            key = key * tokens.weights()[:, None, :, None]
        return query, key, value
