"""Convolutions of pretrained backbones, in float32 or with weights that are stored as integers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from triptych.model.config import Precision
from triptych.model.dense import MOST, dequantize, quantize


class GridConv2d(nn.Conv2d):
    """A convolution whose weights may live on the int8 grid, one step size per output.

    precision: 'int8_weights' puts them there; its products stay in float32, as those of 'int8' networks do here, whose
    convolutions stay float32 altogether: a runtime would turn stored integers back at every call
    """

    def __init__(self, *sizes: Any, precision: Precision, **more: Any) -> None:
        super().__init__(*sizes, **more)
        self.precision: Precision = precision
        self.stored = False
        self.whole: Tensor
        self.scale: Tensor
        self.zero: Tensor

    def kernel(self) -> Tensor:
        """The weights to multiply with: (outputs, inputs / groups, height, width)."""
        if self.stored:
            back: Tensor = dequantize(self.whole, self.scale, self.zero, 0)
            return back
        if self.precision != "int8_weights":
            return self.weight
        scale = self.weight_scale()
        gridded: Tensor = quantize(self.weight, scale, torch.zeros_like(scale, dtype=torch.int8), 0)
        return gridded

    def weight_scale(self) -> Tensor:
        """Symmetric step size per output: (outputs,)."""
        return self.weight.detach().abs().amax(dim=(1, 2, 3)).clamp(min=1e-8) / MOST

    def store_(self) -> None:
        """Keep integers in place of the weights, for export."""
        scale = self.weight_scale()
        whole = (self.weight.detach() / scale.view(-1, 1, 1, 1)).round().clamp(-MOST, MOST).to(torch.int8)
        del self.weight
        self.register_buffer("whole", whole)
        self.register_buffer("scale", scale)
        self.register_buffer("zero", torch.zeros_like(scale, dtype=torch.int8))
        self.stored = True

    def forward(self, x: Tensor) -> Tensor:
        """x: (batch, inputs, height, width) → (batch, outputs, height, width)"""
        out: Tensor = self._conv_forward(x, self.kernel(), self.bias)
        return out
