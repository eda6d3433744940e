"""One projection (Liu et al. 2023, LLaVA; Zhu et al. 2023, MiniGPT-4): N tokens out for N, O(N · inputs · dim)."""

from __future__ import annotations

from typing import final

from triptych.model.config import ConnectorConfig, Precision
from triptych.model.connectors.connector import Connector
from triptych.model.dense import Dense
from triptych.tokens import Tokens


@final
class LinearConnector(Connector):
    """Every token by itself: W x + b."""

    def __init__(
        self, inputs: int, config: ConnectorConfig, grid: tuple[int, ...], precision: Precision, dropout: float
    ) -> None:
        super().__init__(inputs, config, grid, precision, dropout)
        self.project = Dense(inputs, config.dim, precision=precision)

    def forward(self, tokens: Tokens) -> Tokens:
        """tokens.x: (batch, tokens, inputs) → (batch, tokens, dim)"""
        return tokens.with_x(self.project(tokens.x))
