"""Images to patch tokens (Dosovitskiy et al. 2021, ViT)."""

from __future__ import annotations

from typing import ClassVar, final

import torch
from torch import Tensor
from torch.nn import functional

from triptych.model.config import EncoderConfig, Precision
from triptych.model.dense import Dense, Embedding, dequantize
from triptych.model.stems.stem import Stem
from triptych.schema import Kind, Modality
from triptych.tokens import Tokens


@final
class ImageStem(Stem):
    """(batch, height, width, channels) uint8 → a token per patch.

    The pixels are already integers, so an int8 network multiplies them as they are: real value = (pixel − 128) / 64.
    """

    kind: ClassVar[Kind] = "image"

    def __init__(self, modality: Modality, encoder: EncoderConfig, precision: Precision) -> None:
        super().__init__(modality, encoder, precision)
        self.patch = encoder.stem.patch
        self.grid = (-(-modality.height // self.patch), -(-modality.width // self.patch))
        self.tokens = self.grid[0] * self.grid[1]
        self.bottom = self.grid[0] * self.patch - modality.height
        self.right = self.grid[1] * self.patch - modality.width
        self.project = Dense(self.patch**2 * modality.channels, encoder.dim, precision=precision)
        self.position = Embedding(self.tokens, encoder.dim, precision=precision)
        self.register_buffer("pixel_scale", torch.tensor(1 / 64), persistent=False)
        self.register_buffer("pixel_zero", torch.tensor(128, dtype=torch.uint8), persistent=False)
        self.pixel_scale: Tensor
        self.pixel_zero: Tensor

    def forward(self, raw: Tensor) -> Tokens:
        """raw: (batch, height, width, channels) uint8"""
        return Tokens(self.project(self._patches(raw)) + self.position.rows(self.tokens))

    def _patches(self, pixels: Tensor) -> Tensor:
        if self.bottom or self.right:
            pixels = functional.pad(pixels, (0, 0, 0, self.right, 0, self.bottom), value=128)
        rows, columns = self.grid
        cells = pixels.reshape(pixels.shape[0], rows, self.patch, columns, self.patch * pixels.shape[3])
        patches = cells.transpose(2, 3).reshape(pixels.shape[0], self.tokens, -1)
        values: Tensor = dequantize(patches, self.pixel_scale, self.pixel_zero, 0)
        return values
