"""Bottleneck adapters (Houlsby et al. 2019): 2 · r · dim trained numbers per place, which stay in the network."""

from __future__ import annotations

from typing import ClassVar, final

from torch import Tensor, nn
from torch.nn import functional

from triptych.model.adapters.adapter import LayerAdapter
from triptych.model.config import AdapterConfig, Precision
from triptych.model.dense import Dense


@final
class Bottleneck(LayerAdapter):
    """y + W₂ gelu(W₁ y) on what a layer gives: the last ones of mixers and channel blocks.  Zero at the start."""

    usual: ClassVar[tuple[str, ...]] = ("out", "down")

    def __init__(self, inputs: int, outputs: int, config: AdapterConfig, precision: Precision) -> None:
        super().__init__(inputs, outputs, config, precision)
        self.narrow = Dense(outputs, config.rank, precision=precision)
        self.widen = Dense(config.rank, outputs, precision=precision)
        nn.init.zeros_(self.widen.weight)

    def after(self, out: Tensor) -> Tensor:
        """out: (..., outputs) → (..., outputs)"""
        change: Tensor = self.widen(functional.gelu(self.narrow(out)))
        return out + change
