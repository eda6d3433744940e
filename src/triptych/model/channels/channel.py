"""What every channel block is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor, nn

from triptych.model.config import BlockConfig, Precision


class Channel(nn.Module, ABC):
    """Changes each token, at most with a look at its neighbours.

    any_tokens: whether it reads no neighbours, so that any subset of the tokens will do
    """

    any_tokens: ClassVar[bool] = True

    @abstractmethod
    def __init__(self, dim: int, block: BlockConfig, precision: Precision) -> None:
        super().__init__()

    @abstractmethod
    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """x: (batch, tokens, dim), mask: (batch, tokens) bool, None if all are real → (batch, tokens, dim)"""
