"""What every stem is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor, nn

from triptych.model.config import EncoderConfig, Precision
from triptych.schema import Kind, Modality
from triptych.tokens import Tokens


class Stem(nn.Module, ABC):
    """Turns raw values into tokens.

    kind:   of the modalities that it reads; None where it reads any
    grid:   rows and columns of the tokens, or their number, or () where it varies
    tokens: the largest number of tokens
    """

    kind: ClassVar[Kind | None]
    grid: tuple[int, ...]
    tokens: int

    @abstractmethod
    def __init__(self, modality: Modality, encoder: EncoderConfig, precision: Precision) -> None:
        super().__init__()

    @abstractmethod
    def forward(self, raw: Tensor) -> Tokens:
        """raw: as in `Batch.inputs`"""
