"""What every fusion is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor, nn

from triptych.model.config import FusionConfig, Precision
from triptych.tokens import Tokens


class Fusion(nn.Module, ABC):
    """Turns the tokens of any modalities into one vector.

    width:  of that vector
    starts: where a modality's own features begin in it, for fusions that put them side by side
    mixer:  the usual mixer of the config's blocks that it is made of; empty where it has no blocks
    """

    mixer: ClassVar[str] = ""
    width: int
    starts: Mapping[str, int]

    @abstractmethod
    def __init__(self, dims: Mapping[str, int], config: FusionConfig, precision: Precision, dropout: float) -> None:
        super().__init__()
        self.starts = {}

    @abstractmethod
    def forward(self, streams: Mapping[str, Tokens]) -> Tensor:
        """streams: any non-empty subset of the modalities → (batch, width)"""
