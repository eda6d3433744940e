"""What LoRA and DoRA share: a change of low rank."""

from __future__ import annotations

from abc import ABC
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from triptych.model.adapters.adapter import LayerAdapter
from triptych.model.config import AdapterConfig, Precision


class LowRankChange(LayerAdapter, ABC):
    """ΔW = B A · α / r, zero at the start since B is.

    down: A, (rank, inputs); up: B, (outputs, rank)
    """

    merges: ClassVar[bool] = True

    def __init__(self, inputs: int, outputs: int, config: AdapterConfig, precision: Precision) -> None:
        super().__init__(inputs, outputs, config, precision)
        self.scale = config.alpha / config.rank
        self.down = nn.Parameter(torch.randn(config.rank, inputs) * inputs**-0.5)
        self.up = nn.Parameter(torch.zeros(outputs, config.rank))

    def changed(self, weight: Tensor) -> Tensor:
        """W + ΔW: (outputs, inputs)."""
        return weight + self.up @ self.down * self.scale

    def product_of_changed(self, x: Tensor, weight: Tensor) -> Tensor:
        """x · (W + ΔW)ᵀ by way of the few dimensions of the change: (..., inputs) → (..., outputs)"""
        return functional.linear(x, weight) + functional.linear(functional.linear(x, self.down), self.up) * self.scale
