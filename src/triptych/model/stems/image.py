"""Images to patch tokens (Dosovitskiy et al. 2021, ViT)."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional

from triptych.model.config import EncoderConfig, Precision
from triptych.model.dense import Dense, Embedding, dequantize
from triptych.schema import Modality
from triptych.tokens import Tokens


@final
class ImageStem(nn.Module):
    """(batch, height, width, channels) uint8 → a token per patch.

    The pixels are already integers, so an int8 network multiplies them as they are: real value = (pixel − 128) / 64.
    """

    def __init__(self, modality: Modality, encoder: EncoderConfig, precision: Precision) -> None:
        super().__init__()
        self.patch, self.shrink = encoder.stem.patch, encoder.stem.shrink
        height, width = -(-modality.height // self.shrink), -(-modality.width // self.shrink)
        self.grid: tuple[int, ...] = (-(-height // self.patch), -(-width // self.patch))
        self.tokens = self.grid[0] * self.grid[1]
        self.size = (modality.height, modality.width)
        self.project = Dense(self.patch**2 * modality.channels, encoder.dim, precision=precision)
        self.position = Embedding(self.tokens, encoder.dim, precision=precision)
        self.register_buffer("pixel_scale", torch.tensor(1 / 64), persistent=False)
        self.register_buffer("pixel_zero", torch.tensor(128, dtype=torch.uint8), persistent=False)
        self.pixel_scale: Tensor
        self.pixel_zero: Tensor

    def forward(self, pixels: Tensor) -> Tokens:
        """pixels: (batch, height, width, channels) uint8"""
        return Tokens(self.project(self._patches(pixels)) + self.position.rows(self.tokens))

    def _patches(self, pixels: Tensor) -> Tensor:
        step = self.patch * self.shrink
        bottom, right = self.grid[0] * step - self.size[0], self.grid[1] * step - self.size[1]
        if bottom or right:
            pixels = functional.pad(pixels, (0, 0, 0, right, 0, bottom), value=128)
        cells = (self.grid[0], self.patch, self.shrink, self.grid[1], self.patch, self.shrink)
        split = pixels.reshape(pixels.shape[0], *cells, pixels.shape[3]).permute(0, 1, 4, 2, 5, 7, 3, 6)
        if self.shrink == 1:
            return dequantize(split.flatten(3).flatten(1, 2), self.pixel_scale, self.pixel_zero, 0)
        shrunk = dequantize(split.flatten(6), self.pixel_scale, self.pixel_zero, 0).mean(dim=-1)
        return shrunk.flatten(3).flatten(1, 2)
