"""What every connector is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor, nn

from triptych.model.config import ConnectorConfig, Precision
from triptych.tokens import Tokens


class Connector(nn.Module, ABC):
    """Hands one modality's tokens to the fusion.

    mixer:      the usual mixer of the config's blocks that it is made of; empty where it has no blocks
    any_tokens: whether it reads any subset of the tokens, because their places are in their values alone
    """

    mixer: ClassVar[str] = ""
    any_tokens: ClassVar[bool] = True

    @abstractmethod
    def __init__(
        self, inputs: int, config: ConnectorConfig, grid: tuple[int, ...], precision: Precision, dropout: float
    ) -> None:
        super().__init__()

    @abstractmethod
    def forward(self, tokens: Tokens) -> Tokens:
        """tokens.x: (batch, tokens, inputs) → (batch, tokens or fewer, dim)"""


def learnt(x: Tensor, source: Tokens) -> Tokens:
    """Tokens that stand for a whole sequence; not real in the rows where it holds no real token.

    x: (batch, queries, dim)
    """
    if source.mask is None:
        return Tokens(x)
    return Tokens(x, source.some().expand(-1, x.shape[1]))
