"""Low-rank adaptation (Hu et al. 2022, LoRA): r · (inputs + outputs) trained numbers per layer, none after merging."""

from __future__ import annotations

from typing import final

from torch import Tensor

from triptych.model.adapters.low_rank import LowRankChange


@final
class Lora(LowRankChange):
    """W + B A · α / r."""

    def matrix(self, weight: Tensor) -> Tensor:
        """W + ΔW: (outputs, inputs)."""
        return self.changed(weight)

    def product(self, x: Tensor, weight: Tensor) -> Tensor:
        """x · (W + ΔW)ᵀ: (..., inputs) → (..., outputs)"""
        return self.product_of_changed(x, weight)
