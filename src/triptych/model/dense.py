"""The matrix product that every part is made of, in float32 or in int8.

In int8 it computes what the runtime computes: values are rounded to the integer grid and back (Jacob et al. 2018,
"Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference"), so that a network can
be trained on the grid and exports as QuantizeLinear/DequantizeLinear pairs that a runtime turns into integer kernels.
"""

from __future__ import annotations

from abc import ABC

import torch
from torch import Tensor, nn
from torch.nn import functional

from triptych.errors import ModelError
from triptych.model.config import Precision

MOST = 127
_MOST_BESIDE_INTEGERS = 63  # 2 · 255 · 63 fits into 16 bits, where processors without 8-bit dot products add pairs


@torch.library.custom_op("triptych::quantize", mutates_args=())
def quantize(x: Tensor, scale: Tensor, zero: Tensor, axis: int) -> Tensor:
    """Round to the integer grid and back: (clip(round(x / scale) + zero) − zero) · scale.

    scale, zero: () or one per index of `axis`; the type of `zero` (uint8 or int8) gives the clipping range.
    """
    low, high = (0, 255) if zero.dtype == torch.uint8 else (-127, 127)
    shape = [-1 if i == axis % x.ndim else 1 for i in range(x.ndim)] if scale.ndim else []
    scale, offset = scale.reshape(shape), zero.to(x.dtype).reshape(shape)
    return (((x / scale).round() + offset).clamp(low, high) - offset) * scale


@quantize.register_fake
def _(x: Tensor, scale: Tensor, zero: Tensor, axis: int) -> Tensor:  # noqa: ARG001
    return torch.empty_like(x)


def _keep_for_backward(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]  # noqa: ARG001
    x, scale, zero, axis = inputs
    ctx.save_for_backward(x, scale, zero)
    ctx.axis = axis


def _straight_through(ctx, gradient: Tensor):  # type: ignore[no-untyped-def]
    x, scale, zero = ctx.saved_tensors
    low, high = (0, 255) if zero.dtype == torch.uint8 else (-127, 127)
    shape = [-1 if i == ctx.axis % x.ndim else 1 for i in range(x.ndim)] if scale.ndim else []
    level = x / scale.reshape(shape) + zero.to(x.dtype).reshape(shape)
    return gradient * ((level >= low) & (level <= high)), None, None, None


quantize.register_autograd(_straight_through, setup_context=_keep_for_backward)


@torch.library.custom_op("triptych::dequantize", mutates_args=())
def dequantize(x: Tensor, scale: Tensor, zero: Tensor, axis: int) -> Tensor:
    """Integers to real values: (x − zero) · scale.

    scale, zero: () or one per index of `axis`
    """
    shape = [-1 if i == axis % x.ndim else 1 for i in range(x.ndim)] if scale.ndim else []
    return (x.to(torch.float32) - zero.to(torch.float32).reshape(shape)) * scale.reshape(shape)


@dequantize.register_fake
def _(x: Tensor, scale: Tensor, zero: Tensor, axis: int) -> Tensor:  # noqa: ARG001
    return torch.empty(x.shape, dtype=torch.float32, device=x.device)


class DenseAdapter(nn.Module, ABC):
    """What is trained in place of a layer's own weights; each of its steps does nothing unless it is overridden."""

    def matrix(self, weight: Tensor) -> Tensor:
        """The weights to multiply with, (outputs, inputs) both."""
        return weight

    def product(self, x: Tensor, weight: Tensor) -> Tensor:
        """x · matrixᵀ, perhaps by a cheaper way: (..., inputs) → (..., outputs)"""
        return functional.linear(x, self.matrix(weight))

    def after(self, out: Tensor) -> Tensor:
        """What becomes of the layer's output: (..., outputs) → (..., outputs)"""
        return out


class GridLayer(nn.Module):
    """A layer whose weights, and perhaps inputs, live on the int8 grid.

    precision: 'float32'; 'int8_weights' (weights on the grid, products in float32); 'int8' (inputs on the grid too,
    after `observe`-ing calibration data).
    """

    def __init__(self, precision: Precision) -> None:
        super().__init__()
        self.precision: Precision = precision
        self.weight: nn.Parameter  # (…, outputs, inputs)
        self.observing = False
        if precision == "int8":
            self.register_buffer("low", torch.zeros(()))
            self.register_buffer("high", torch.zeros(()))
        self.low: Tensor
        self.high: Tensor

    def most(self) -> int:
        """Largest weight on the grid: of seven bits where inputs are integers too, so that no processor saturates."""
        return _MOST_BESIDE_INTEGERS if self.precision == "int8" else MOST

    def input_grid(self) -> tuple[Tensor, Tensor]:
        """Step size and zero point of the inputs, from the range seen while observing: () float32, () uint8."""
        scale = (self.high - self.low).clamp(min=1e-8) / 255
        return scale, (-self.low / scale).round().clamp(0, 255).to(torch.uint8)

    def _on_input_grid(self, x: Tensor) -> Tensor:
        if self.observing:
            self.low = torch.minimum(self.low, x.detach().min().float())
            self.high = torch.maximum(self.high, x.detach().max().float())
            return x
        gridded: Tensor = quantize(x, *self.input_grid(), -1)
        return gridded


class Dense(GridLayer):
    """A linear layer, perhaps on the int8 grid: one step size per output, one for all inputs."""

    def __init__(self, inputs: int, outputs: int, *, precision: Precision = "float32", bias: bool = True) -> None:
        super().__init__(precision)
        self.weight = nn.Parameter(torch.empty(outputs, inputs))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        nn.init.trunc_normal_(self.weight, std=min(0.05, inputs**-0.5))
        self.adapter: DenseAdapter | None = None

    def extra_repr(self) -> str:
        """Shape and precision."""
        return f"{self.weight.shape[1]}, {self.weight.shape[0]}, {self.precision}"

    def forward(self, x: Tensor) -> Tensor:
        """x: (..., inputs) → (..., outputs)"""
        if self.precision == "int8":
            x = self._on_input_grid(x)
        if self.precision != "float32":
            out = functional.linear(x, self._on_weight_grid(), self.bias)
        elif self.adapter is None:
            out = functional.linear(x, self.weight, self.bias)
        else:
            out = self.adapter.product(x, self.weight)
            out = out if self.bias is None else out + self.bias
        return out if self.adapter is None else self.adapter.after(out)

    def matrix(self) -> Tensor:
        """The weights to multiply with, an adapter's change included: (outputs, inputs)."""
        return self.weight if self.adapter is None else self.adapter.matrix(self.weight)

    def weight_scale(self) -> Tensor:
        """Symmetric step size per output: (outputs,)."""
        return self.matrix().detach().abs().amax(dim=1).clamp(min=1e-8) / self.most()

    def _on_weight_grid(self) -> Tensor:
        scale = self.weight_scale()
        gridded: Tensor = quantize(self.matrix(), scale, torch.zeros_like(scale, dtype=torch.int8), 0)
        return gridded


class Embedding(nn.Module):
    """A table of vectors, perhaps on the int8 grid with one step size per column."""

    def __init__(self, count: int, dim: int, *, precision: Precision = "float32") -> None:
        super().__init__()
        if count < 1:
            raise ModelError(f"an embedding needs at least one row, got {count}")
        self.weight = nn.Parameter(torch.randn(count, dim) * 0.02)
        self.precision: Precision = precision

    def forward(self, ids: Tensor) -> Tensor:
        """ids: (batch, tokens) int64 → (batch, tokens, dim)"""
        return functional.embedding(ids, self._table())

    def rows(self, count: int) -> Tensor:
        """The first rows, as for positions: (count, dim)."""
        return self._table()[:count]

    def column_scale(self) -> Tensor:
        """Symmetric step size per column: (dim,)."""
        return self.weight.detach().abs().amax(dim=0).clamp(min=1e-8) / MOST

    def _table(self) -> Tensor:
        if self.precision == "float32":
            return self.weight
        scale = self.column_scale()
        table: Tensor = quantize(self.weight, scale, torch.zeros_like(scale, dtype=torch.int8), 1)
        return table
