"""Videos to tubelet tokens (Arnab et al. 2021, ViViT)."""

from __future__ import annotations

from math import prod
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
class VideoStem(Stem):
    """(batch, frames, height, width, channels) uint8 → a token per `tubelet` frames of a patch.

    As in images, real value = (pixel − 128) / 64.  The grid that mixers see is the frames' grids, one below the other.
    """

    kind: ClassVar[Kind] = "video"

    def __init__(self, modality: Modality, encoder: EncoderConfig, precision: Precision) -> None:
        super().__init__(modality, encoder, precision)
        self.size = (encoder.stem.tubelet, encoder.stem.patch, encoder.stem.patch)
        given = (modality.frames, modality.height, modality.width)
        self.counts = tuple(-(-length // size) for length, size in zip(given, self.size, strict=True))
        extra = [c * s - n for c, s, n in zip(self.counts, self.size, given, strict=True)]
        self.padding = (0, 0, 0, extra[2], 0, extra[1], 0, extra[0])
        self.tokens = prod(self.counts)
        self.grid = (self.counts[0] * self.counts[1], self.counts[2])
        self.project = Dense(prod(self.size) * modality.channels, encoder.dim, precision=precision)
        self.position = Embedding(self.tokens, encoder.dim, precision=precision)
        self.register_buffer("pixel_scale", torch.tensor(1 / 64), persistent=False)
        self.register_buffer("pixel_zero", torch.tensor(128, dtype=torch.uint8), persistent=False)
        self.pixel_scale: Tensor
        self.pixel_zero: Tensor

    def forward(self, raw: Tensor) -> Tokens:
        """raw: (batch, frames, height, width, channels) uint8"""
        values = dequantize(self._tubelets(raw), self.pixel_scale, self.pixel_zero, 0)
        return Tokens(self.project(values) + self.position.rows(self.tokens))

    def _tubelets(self, pixels: Tensor) -> Tensor:
        """(batch, tokens, frames of a tubelet · patch · patch · channels) uint8"""
        if any(self.padding):
            pixels = functional.pad(pixels, self.padding, value=128)
        (frames, rows, columns), (tubelet, patch, _) = self.counts, self.size
        cells = pixels.reshape(-1, frames, tubelet, rows, patch, columns, patch * pixels.shape[4])
        return cells.permute(0, 1, 3, 5, 2, 4, 6).flatten(4).flatten(1, 3)
