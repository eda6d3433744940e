"""Tensor fusion (Zadeh et al. 2017, TFN).  O((tensor_dim + 1)^modalities · dim) time and weights, after pooling.

It never sees pairs of tokens, so it is off the rows of the survey's Table 1: linear in tokens, exponential in
modalities.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

import torch
from torch import Tensor

from triptych.errors import ModelError
from triptych.model.config import FusionConfig, Precision
from triptych.model.dense import Dense
from triptych.model.fusion.fusion import Fusion
from triptych.model.fusion.vectors import Vectors
from triptych.tokens import Tokens

_LARGEST = 1 << 16  # entries of the product; times `dim` that many weights


@final
class TensorFusion(Fusion):
    """The outer product of one vector per modality, each with a 1 appended, and a projection of it.

    The ones keep every product of fewer modalities in it; a missing modality is a zero vector, which leaves exactly the
    products of the others.
    """

    def __init__(self, dims: Mapping[str, int], config: FusionConfig, precision: Precision, dropout: float) -> None:
        super().__init__(dims, config, precision, dropout)
        entries = (config.tensor_dim + 1) ** len(dims)
        if entries > _LARGEST:
            raise ModelError(
                f"tensor fusion of {len(dims)} modalities with tensor_dim {config.tensor_dim} makes a product of "
                f"{entries} entries, more than {_LARGEST}; lower tensor_dim, or use low_rank_fusion"
            )
        self.vectors = Vectors(dims, config.tensor_dim, precision)
        stored: Precision = "float32" if precision == "float32" else "int8_weights"
        self.out = Dense(entries, config.dim, precision=stored)  # products differ too much in size for one input grid
        self.width = config.dim

    def forward(self, streams: Mapping[str, Tokens]) -> Tensor:
        """streams: any non-empty subset of the modalities → (batch, width)"""
        vectors, _ = self.vectors(streams)
        out: Tensor = self.out(outer(vectors))
        return out


def outer(vectors: Tensor) -> Tensor:
    """Entries of ⊗ [vector; 1], the last modality's fastest.

    vectors: (modalities, batch, dim) → (batch, (dim + 1)^modalities)
    """
    extended = torch.cat([vectors, torch.ones_like(vectors[..., :1])], dim=-1)
    product = extended[0]
    for factor in extended[1:]:
        product = (product.unsqueeze(2) * factor.unsqueeze(1)).flatten(1)
    return product
