"""A learnt vector per modality stands in where the modality is missing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

import torch
from torch import Tensor, nn

from triptych.model.missing.fill import Fill


@final
class PlaceholderFill(Fill):
    """One learnt token per modality, whatever else the row holds; it only learns from rows that lack the modality."""

    def __init__(self, dims: Mapping[str, int]) -> None:
        super().__init__(dims)
        self.vectors = nn.ParameterDict({name: nn.Parameter(torch.zeros(dim)) for name, dim in dims.items()})

    def vector(self, name: str, exists: Tensor) -> Tensor:
        """exists: (batch, modalities) bool → (batch, dim), the same in every row"""
        one: Tensor = self.vectors[name]
        return one.expand(exists.shape[0], -1)
