"""Numbers by how far they lie from what is usual."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn


@final
class Standardise(nn.Module):
    """(x − mean) / √(variance + least), within ±far, by running moments of the rows seen in training.

    Moments are plain averages over the batches until `1 / pace` have been seen, and exponential ones from then on: a
    short training knows its rows as well as a long one.

    mean, variance: (numbers,);  batches: () int64, seen so far
    """

    mean: Tensor
    variance: Tensor
    batches: Tensor

    def __init__(self, numbers: int, *, least: float, far: float, pace: float = 0.05) -> None:
        super().__init__()
        self.least, self.far, self.pace = least, far, pace
        self.register_buffer("mean", torch.zeros(numbers))
        self.register_buffer("variance", torch.ones(numbers))
        self.register_buffer("batches", torch.zeros((), dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        """x: (rows, numbers), which moves the moments in training → the same shape"""
        if self.training:
            self.follow_(x.detach())
        return ((x - self.mean) * (self.variance + self.least).rsqrt()).clamp(-self.far, self.far)

    @torch.no_grad()
    def follow_(self, x: Tensor) -> None:
        """Move the moments towards those of a batch.  x: (rows, numbers)"""
        self.batches += 1
        pace = (1 / self.batches.to(x.dtype)).clamp(min=self.pace)
        self.mean.lerp_(x.mean(dim=0), pace)
        self.variance.lerp_(x.var(dim=0, correction=0), pace)

    @torch.no_grad()
    def set_(self, x: Tensor) -> None:
        """Take the moments of these rows.  x: (rows, numbers)"""
        self.mean.copy_(x.mean(dim=0))
        self.variance.copy_(x.var(dim=0, correction=0))
