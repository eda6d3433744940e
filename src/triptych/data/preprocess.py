"""Preprocessing as modules, so that a bundle's graphs hold the formula that training used."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

from triptych.errors import SchemaError


@final
class ImageResize(nn.Module):
    """Resize images with the antialiased triangle filter of `resize`, to within one grey level of it.

    Height and width of the input may be dynamic when exported.
    """

    def __init__(self, height: int, width: int) -> None:
        super().__init__()
        if height < 1 or width < 1:
            raise SchemaError(f"height and width must be at least 1, got {height} and {width}")
        self.height, self.width = height, width

    def forward(self, image: Tensor) -> Tensor:
        """image: (batch, any height, any width, channels) uint8 → (batch, height, width, channels) uint8"""
        rows = torch.einsum("oh,bhwc->bowc", triangle(image.shape[1], self.height), image.float())
        pixels = torch.einsum("ow,bhwc->bhoc", triangle(image.shape[2], self.width), rows)
        return torch.clamp(torch.floor(pixels + 0.5), 0, 255).to(torch.uint8)


def triangle(old: int, new: int) -> Tensor:
    """Weights of the triangle filter: (new, old) float32, rows sum to one; `old` may be symbolic."""
    positions = torch.arange(old, dtype=torch.float32) + 0.5
    scale = (positions[-1:] + 0.5) / new
    centers = (torch.arange(new, dtype=torch.float32) + 0.5) * scale
    distance = (positions - centers.unsqueeze(1)).abs()
    weights = torch.clamp(1 - distance / torch.clamp(scale, min=1.0), min=0.0)
    return weights / weights.sum(dim=1, keepdim=True)
