"""Kolmogorov–Arnold layers (Liu et al. 2024, KAN): a learned function on every edge, sums at the nodes.

Radial bumps stand in for the paper's B-splines (Li 2024, FastKAN), so that a layer is one matrix product.
"""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor
from torch.nn import functional

from triptych.model.channels.channel import Channel
from triptych.model.config import BlockConfig, Precision
from triptych.model.dense import Dense

_REACH = 2.0  # bumps stand from −_REACH to _REACH: inputs are normed


@final
class Kan(Channel):
    """dim → hidden → dim; an edge is w_0 · silu(x) + Σ_k w_k · exp(−((x − t_k) / spacing)²) with `knots` bumps.

    (`knots` + 1) times the parameters and multiplications of a perceptron of equal hidden width.
    """

    def __init__(self, dim: int, block: BlockConfig, precision: Precision) -> None:
        super().__init__(dim, block, precision)
        edge = block.knots + 1
        self.up = Dense(dim * edge, block.hidden, precision=precision)
        self.down = Dense(block.hidden * edge, dim, precision=precision)
        self.spacing = 2 * _REACH / max(1, block.knots - 1)
        self.register_buffer("places", torch.linspace(-_REACH, _REACH, block.knots), persistent=False)
        self.places: Tensor

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:  # noqa: ARG002
        """x: (batch, tokens, dim) → (batch, tokens, dim)"""
        out: Tensor = self.down(self._features(self.up(self._features(x))))
        return out

    def _features(self, x: Tensor) -> Tensor:
        """What every edge from an input weighs, side by side: (..., inputs) → (..., inputs · (knots + 1))."""
        bumps = torch.exp(-((x.unsqueeze(-1) - self.places) / self.spacing).square())
        return torch.cat([functional.silu(x).unsqueeze(-1), bumps], dim=-1).flatten(-2)
