"""Sensor series to tokens through convolutions: a movement has a shape, wherever in time it lies."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional

from triptych.model.config import EncoderConfig, Precision
from triptych.model.convolution import GridConv2d
from triptych.model.stems.frames import FramesStem
from triptych.model.stems.lengths import Lengths
from triptych.schema import Modality
from triptych.tokens import Tokens

_REACH = 4  # steps that the first convolution sees before and after its own; later ones see two


@final
class ConvolvedStem(FramesStem):
    """(batch, frames, channels) float32, NaN where missing → a token per run of frames.

    A run of n frames becomes one token through as many convolutions as n has prime factors, the least first, each as
    many steps apart as its factor says: three that halve the series for a run of eight.  Each is followed by a batch
    norm (Ioffe and Szegedy 2015, "Batch Normalization"), which goes into a float32 graph's convolution, and GELU, much
    like the network of Wang et al. 2017, "Time Series Classification from Scratch with Deep Neural Networks".
    The first has `hidden` outputs, the others as many as tokens are wide.
    Read beside the channels: where they are missing, and `Lengths` where they come in threes.
    """

    def __init__(self, modality: Modality, encoder: EncoderConfig, precision: Precision) -> None:
        super().__init__(modality, encoder, precision)
        self.lengths = None if modality.channels % 3 else Lengths(modality)
        width = 2 * modality.channels + (self.lengths.sensors if self.lengths else 0)
        self.layers = nn.ModuleList()
        strides = prime_factors(self.run)
        for number, stride in enumerate(strides):
            reach = 2 if number else _REACH
            out = encoder.dim if number or len(strides) == 1 else encoder.stem.hidden
            self.layers.append(_Convolution(width, out, stride, reach, precision))
            width = out

    def forward(self, raw: Tensor) -> Tokens:
        """raw: (batch, frames, channels) float32"""
        series = self.padded(raw)
        x, missing = self.scale(series)
        read = [x, missing.to(x.dtype)]
        if self.lengths:
            read.append(self.lengths(series))
        x = torch.cat(read, dim=-1).transpose(1, 2).unsqueeze(2)
        for layer in self.layers:
            x = layer(x)
        tokens = x.squeeze(2).transpose(1, 2) + self.position.rows(self.tokens)
        mask = ~torch.unflatten(missing, 1, (self.tokens, self.run)).flatten(2).all(dim=2) if self.mask else None
        return Tokens(tokens, mask)


class _Convolution(nn.Module):
    """(batch, inputs, 1, stride · steps) → (batch, outputs, 1, steps)"""

    def __init__(self, inputs: int, outputs: int, stride: int, reach: int, precision: Precision) -> None:
        super().__init__()
        size = 2 * reach + stride
        self.convolution = GridConv2d(
            inputs, outputs, (1, size), (1, stride), (0, reach), bias=False, precision=precision
        )
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return functional.gelu(self.norm(self.convolution(x)))


def prime_factors(number: int) -> tuple[int, ...]:
    """Of a positive number, the least first; (1,) for 1."""
    factors, least = [], 2
    while number > 1:
        while number % least:
            least += 1
        factors.append(least)
        number //= least
    return tuple(factors) or (1,)
