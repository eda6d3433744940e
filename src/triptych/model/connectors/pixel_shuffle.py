"""Pixel shuffle (Shi et al. 2016, inverted; Laurençon et al. 2024, Idefics3; Liu et al. 2024, NVILA).

N / s² tokens out of an image, N / s of a sequence, nothing thrown away; O(N · inputs · dim).
"""

from __future__ import annotations

from typing import ClassVar, final

from triptych.model.config import ConnectorConfig, Precision
from triptych.model.connectors.connector import Connector
from triptych.model.connectors.regions import Folding
from triptych.model.dense import Dense
from triptych.tokens import Tokens


@final
class PixelShuffle(Connector):
    """Neighbours side by side in one wide token, then one projection.

    s × s of them on an image's grid, s in a row elsewhere; what is not real counts as zeros.  The neighbours' values of
    a feature lie side by side, so that pruning cuts a feature in one piece.
    """

    any_tokens: ClassVar[bool] = False

    def __init__(
        self, inputs: int, config: ConnectorConfig, grid: tuple[int, ...], precision: Precision, dropout: float
    ) -> None:
        super().__init__(inputs, config, grid, precision, dropout)
        self.fold = Folding(grid, config.fold)
        self.project = Dense(inputs * self.fold.parts, config.dim, precision=precision)

    def forward(self, tokens: Tokens) -> Tokens:
        """tokens.x: (batch, tokens, inputs) → (batch, regions, dim)"""
        regions = self.fold(tokens)
        return regions.one_each(self.project(regions.x.transpose(2, 3).flatten(2)))
