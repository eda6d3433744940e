"""Pixels as an image backbone expects them, inside the graph."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

from triptych.data.preprocess import triangle
from triptych.errors import ModelError
from triptych.schema import Modality


@final
class Pixels(nn.Module):
    """uint8 of the schema's size → (x / 255 − mean) / std, stretched to the backbone's size; grey becomes three alike.

    The size is changed with the antialiased triangle filter of `triptych.data.resize`, not rounded to grey levels.
    mean, std: per channel, three each
    """

    def __init__(
        self, modality: Modality, height: int, width: int, mean: tuple[float, ...], std: tuple[float, ...]
    ) -> None:
        super().__init__()
        if modality.channels not in (1, 3):
            raise ModelError(f"a pretrained backbone reads 1 or 3 channels, {modality.name!r} has {modality.channels}")
        if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
            raise ModelError(f"mean and std need three numbers each, std positive ones; got {mean} and {std}")
        old = (modality.height, modality.width)
        rows = None if old[0] == height else triangle(old[0], height)
        columns = None if old[1] == width else triangle(old[1], width)
        self.register_buffer("rows", rows, persistent=False)
        self.register_buffer("columns", columns, persistent=False)
        self.register_buffer("gain", 1 / (255 * torch.tensor(std)), persistent=False)
        self.register_buffer("offset", -torch.tensor(mean) / torch.tensor(std), persistent=False)
        self.rows: Tensor | None
        self.columns: Tensor | None
        self.gain: Tensor
        self.offset: Tensor

    def forward(self, raw: Tensor) -> Tensor:
        """raw: (batch, height, width, 1 or 3) uint8 → (batch, new height, new width, 3) float32"""
        x = raw.to(torch.float32)
        if self.rows is not None:
            x = torch.unflatten(self.rows @ x.flatten(2), 2, (raw.shape[2], raw.shape[3]))
        if self.columns is not None:
            x = self.columns @ x
        return x * self.gain + self.offset
