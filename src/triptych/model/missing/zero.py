"""Zeros in the place of what is missing: the control that every other way has to beat."""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

from torch import Tensor

from triptych.model.missing.fill import Fill


@final
class ZeroFill(Fill):
    """A token of zeros; the fusion has to learn that it means nothing."""

    def __init__(self, dims: Mapping[str, int]) -> None:
        super().__init__(dims)

    def vector(self, name: str, exists: Tensor) -> Tensor:
        """exists: (batch, modalities) bool → (batch, dim) of zeros"""
        return exists.new_zeros(exists.shape[0], self.dims[name]).float()
