"""Weight-decomposed low-rank adaptation (Liu et al. 2024, DoRA): LoRA for directions, and a length per output."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, final

import torch
from torch import Tensor, nn

from triptych.model.adapters.adapter import targets
from triptych.model.adapters.low_rank import LowRankChange
from triptych.model.config import AdapterConfig, Precision
from triptych.tokens import Batch

if TYPE_CHECKING:
    from triptych.model.multimodal import Multimodal


@final
class Dora(LowRankChange):
    """m · V / ‖V‖ with V = W + B A · α / r and one length m per output, ‖W‖ at the start.

    As in section 4.3 of the paper no gradient flows through ‖V‖, which saves memory.
    """

    def __init__(self, inputs: int, outputs: int, config: AdapterConfig, precision: Precision) -> None:
        super().__init__(inputs, outputs, config, precision)
        self.magnitude = nn.Parameter(torch.ones(outputs))

    def matrix(self, weight: Tensor) -> Tensor:
        """m · V / ‖V‖: (outputs, inputs)."""
        changed = self.changed(weight)
        return changed * (self.magnitude / _lengths(changed.detach())).unsqueeze(1)

    def product(self, x: Tensor, weight: Tensor) -> Tensor:
        """x · (m · V / ‖V‖)ᵀ: (..., inputs) → (..., outputs)"""
        with torch.no_grad():
            lengths = _lengths(self.changed(weight))
        return self.product_of_changed(x, weight) * (self.magnitude / lengths)

    @classmethod
    def begin(
        cls, model: Multimodal, config: AdapterConfig, data: Iterable[Batch] | None
    ) -> tuple[AdapterConfig, dict[str, Tensor]]:
        """Lengths start at those of the network's weights."""
        config, start = super().begin(model, config, data)
        layers = targets(model, config.targets or cls.usual, heads=bool(config.targets))
        lengths = {f"{name}.adapter.magnitude": _lengths(layer.weight.detach()) for name, layer in layers.items()}
        return config, start | lengths


def _lengths(weight: Tensor) -> Tensor:
    """Euclidean length of every output's weights: (outputs,)."""
    lengths: Tensor = torch.linalg.vector_norm(weight, dim=1)
    return lengths.clamp(min=1e-8)
