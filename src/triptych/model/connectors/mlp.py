"""A two-layer perceptron (Liu et al. 2024, LLaVA-1.5): N tokens out for N, O(N · hidden · (inputs + dim))."""

from __future__ import annotations

from typing import final

from torch.nn import functional

from triptych.model.config import ConnectorConfig, Precision
from triptych.model.connectors.connector import Connector
from triptych.model.dense import Dense
from triptych.tokens import Tokens


@final
class MlpConnector(Connector):
    """Every token by itself: inputs → hidden → dim with a Gaussian error linear unit."""

    def __init__(
        self, inputs: int, config: ConnectorConfig, grid: tuple[int, ...], precision: Precision, dropout: float
    ) -> None:
        super().__init__(inputs, config, grid, precision, dropout)
        self.up = Dense(inputs, config.hidden, precision=precision)
        self.down = Dense(config.hidden, config.dim, precision=precision)

    def forward(self, tokens: Tokens) -> Tokens:
        """tokens.x: (batch, tokens, inputs) → (batch, tokens, dim)"""
        return tokens.with_x(self.down(functional.gelu(self.up(tokens.x))))
