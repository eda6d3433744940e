"""What every mixer is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor, nn

from triptych.model.config import BlockConfig, Precision
from triptych.tokens import Tokens


class Mixer(nn.Module, ABC):
    """Lets tokens talk to each other.

    repeats: layers whose outputs hold the heads several times over, such as query, key and value side by side
    any_tokens: whether it reads any subset of the tokens, because their places are in their values alone
    needs_grid: whether it reads the rows and columns of an image, which are gone after a reduction of tokens
    needs_count: whether it has to know the number of tokens beforehand, as it does until a reduction
    """

    repeats: ClassVar[Mapping[str, int]] = {}
    any_tokens: ClassVar[bool] = False
    needs_grid: ClassVar[bool] = False
    needs_count: ClassVar[bool] = False

    @abstractmethod
    def __init__(self, dim: int, block: BlockConfig, grid: tuple[int, ...], precision: Precision) -> None:
        super().__init__()

    @abstractmethod
    def forward(self, tokens: Tokens) -> Tensor:
        """tokens.x: (batch, tokens, dim) → (batch, tokens, dim)"""

    @abstractmethod
    def received(self, tokens: Tokens) -> Tensor:
        """How much the others look at each token: (batch, tokens)."""

    @abstractmethod
    def keys(self, tokens: Tokens) -> Tensor:
        """What likeness of tokens compares: (batch, tokens, any)."""


class WithoutAttention(Mixer, ABC):
    """A mixer that compares no tokens, so that stand-ins have to rank them for a reduction."""

    def received(self, tokens: Tokens) -> Tensor:
        """A token's energy stands in for the attention that it would receive: (batch, tokens)."""
        return tokens.x.square().mean(dim=-1)

    def keys(self, tokens: Tokens) -> Tensor:
        """The tokens themselves, for likeness: (batch, tokens, dim)."""
        return tokens.x
