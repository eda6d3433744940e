"""Scaling that survives wrong entries and heavy tails."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

from triptych.errors import ModelError
from triptych.model.config import Squash
from triptych.schema import Modality

_KNEE = 4.0  # spreads from the median at which softsign is half way to its limit


@torch.library.custom_op("triptych::softsign", mutates_args=())
def softsign(x: Tensor) -> Tensor:
    """x / (1 + |x|), kept whole so that it exports as one node."""
    return x / (1 + x.abs())


@softsign.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


def _keep_for_backward(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]  # noqa: ARG001
    ctx.save_for_backward(*inputs)


def _slope(ctx, gradient: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
    (x,) = ctx.saved_tensors
    slope: Tensor = gradient / (1 + x.abs()).square()
    return slope


softsign.register_autograd(_slope, setup_context=_keep_for_backward)


@final
class RobustScale(nn.Module):
    """z = (x − median) / spread, squashed, and zero where missing.

    asinh:    asinh(z), linear near the median and logarithmic far away
    softsign: z / (4 + |z|), linear near the median and level far away; runtimes compute it much faster
    """

    def __init__(self, modality: Modality, squash: Squash = "asinh") -> None:
        super().__init__()
        if not modality.center or len(modality.center) != len(modality.scale):
            raise ModelError(f"modality {modality.name!r} has no measured centre and scale; load its data first")
        self.squash = squash
        knee = _KNEE if squash == "softsign" else 1.0
        self.register_buffer("center", torch.tensor(modality.center), persistent=False)
        self.register_buffer("inverse", 1 / (knee * torch.tensor(modality.scale)), persistent=False)
        self.center: Tensor
        self.inverse: Tensor

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x: (..., channels), NaN where missing → scaled values, and bool where missing, of the same shape"""
        missing = x.isnan()
        scaled = (x - self.center) * self.inverse
        squashed: Tensor = softsign(scaled) if self.squash == "softsign" else scaled.asinh()
        return squashed.masked_fill(missing, 0.0), missing
