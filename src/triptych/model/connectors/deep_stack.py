"""Visual tokens stacked over layers (Meng et al. 2024, DeepStack).

N / s² tokens out of an image, N / s of a sequence; O(N · inputs · dim) and blocks over N / s² tokens in place of N.
"""

from __future__ import annotations

from typing import ClassVar, final

from torch import nn

from triptych.model.config import ConnectorConfig, Precision
from triptych.model.connectors.connector import Connector
from triptych.model.connectors.regions import Folding
from triptych.model.dense import Dense
from triptych.model.encoder import Block
from triptych.tokens import Tokens


@final
class DeepStack(Connector):
    """Tokens are dealt into s² groups, one token of every s × s square each, and the groups are added layer by layer.

    In the paper the layers are the first ones of the language model.  Here the connector brings layers of its own, so
    that any fusion can follow; a trunk that adds the groups itself takes them from `levels`.  The groups are spread
    evenly over the layers, the first one before the first layer; with fewer layers than groups, several are added at
    once.
    """

    mixer: ClassVar[str] = "attention"
    any_tokens: ClassVar[bool] = False

    def __init__(
        self, inputs: int, config: ConnectorConfig, grid: tuple[int, ...], precision: Precision, dropout: float
    ) -> None:
        super().__init__(inputs, config, grid, precision, dropout)
        self.fold = Folding(grid, config.fold)
        self.project = Dense(inputs, config.dim, precision=precision)
        self.layers = nn.ModuleList(
            Block(config.dim, block, grid=(), precision=precision, dropout=dropout) for block in config.blocks
        )
        self.norm = nn.LayerNorm(config.dim)

    def levels(self, tokens: Tokens) -> tuple[Tokens, ...]:
        """The groups, in the order in which they are added: (batch, regions, dim) each.

        All have the same mask and weights; a token whose own group holds padding there is zero.
        """
        regions = self.fold(tokens)
        x = self.project(regions.x)
        x = x if regions.mask is None else x * regions.mask.unsqueeze(-1)
        return tuple(regions.one_each(x[:, :, part]) for part in range(self.fold.parts))

    def forward(self, tokens: Tokens) -> Tokens:
        """tokens.x: (batch, tokens, inputs) → (batch, regions, dim)"""
        levels = self.levels(tokens)
        found = levels[0]
        for number, layer in enumerate(self.layers):
            for level in self._due(levels, number):
                found = found.with_x(found.x + level.x)
            found = layer(found)
        return found.with_x(self.norm(found.x))

    def _due(self, levels: tuple[Tokens, ...], number: int) -> list[Tokens]:
        """The groups after the first one that are added before a layer."""
        layers = len(self.layers)
        return [level for group, level in enumerate(levels) if group and group * layers // len(levels) == number]
