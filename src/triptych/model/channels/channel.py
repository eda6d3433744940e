"""What every channel block is."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from triptych.model.config import BlockConfig, Precision


class Channel(nn.Module, ABC):
    """Changes each token alone."""

    @abstractmethod
    def __init__(self, dim: int, block: BlockConfig, precision: Precision) -> None:
        super().__init__()

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """x: (batch, tokens, dim) → (batch, tokens, dim)"""
