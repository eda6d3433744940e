"""Gated fusion (Arevalo et al. 2017, GMU).  O((modalities · dim)²) time, after pooling.

It never sees pairs of tokens, so it is off the rows of the survey's Table 1: linear in tokens.  The gates read what the
head of the survey's eq. 6 reads, the vectors of all modalities side by side.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

import torch
from torch import Tensor

from triptych.model.config import FusionConfig, Precision
from triptych.model.dense import Dense
from triptych.model.fusion.fusion import Fusion
from triptych.model.fusion.vectors import Vectors
from triptych.tokens import Tokens


@final
class GatedFusion(Fusion):
    """Σ g_m · tanh(W_m x_m + b_m), where all modalities together decide how much each feature of each one counts.

    A softmax over the modalities that a row holds; for two it is the paper's gate g and 1 − g.
    """

    def __init__(self, dims: Mapping[str, int], config: FusionConfig, precision: Precision, dropout: float) -> None:
        super().__init__(dims, config, precision, dropout)
        self.vectors = Vectors(dims, config.dim, precision)
        fine: Precision = "float32" if precision == "float32" else "int8_weights"  # a softmax magnifies rounding
        self.gate = Dense(len(dims) * config.dim, len(dims) * config.dim, precision=fine)
        self.width = config.dim

    def forward(self, streams: Mapping[str, Tokens]) -> Tensor:
        """streams: any non-empty subset of the modalities → (batch, width)"""
        vectors, exists = self.vectors(streams)
        out: Tensor = (self.gates(vectors, exists) * vectors.tanh()).sum(dim=0)
        return out

    def gates(self, vectors: Tensor, exists: Tensor) -> Tensor:
        """How much each feature counts, adding up to one over the modalities of a row that holds any.

        vectors: (modalities, batch, dim), exists: (modalities, batch, 1) bool → (modalities, batch, dim)

        A feature's values of all modalities lie side by side, so that pruning cuts it in one piece.
        """
        logits = self.gate(vectors.permute(1, 2, 0).flatten(1)).unflatten(1, (-1, len(vectors))).permute(2, 0, 1)
        return torch.where(exists, logits, -1e4).softmax(dim=0)
