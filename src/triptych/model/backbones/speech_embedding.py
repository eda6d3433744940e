"""Speech embeddings of 96 numbers per 80 ms (Lin et al. 2020, "Training Keyword Spotters with Limited and Synthesized
Speech Data").

The weights that this reads are those of `embedding_model.onnx` in the Python package `openwakeword` 0.5.1.  Its README
says that they are Google's `speech_embedding` of TensorFlow Hub, under Apache-2.0, and elsewhere that all models of the
package are CC BY-NC-SA 4.0: ask its author before a commercial use.  `triptych.model.packaged` reads them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from triptych.errors import ModelError
from triptych.model.backbones.folder import Folder
from triptych.model.backbones.waveform import AudioBackbone, fitted, power, slaney_bank
from triptych.model.config import Precision, make
from triptych.model.convolution import GridConv2d
from triptych.schema import Modality
from triptych.tokens import Tokens

MELS, WINDOW, BINS, HOP = 32, 400, 512, 160  # samples at 16 kHz
FRAMES, STEP = 76, 8  # of the spectrogram: those that one embedding reads, and those between two of them
_FULL_SCALE = 32768.0  # it was trained on 16-bit samples
_RANGE_DB = 80.0
_POOLS = ((2, 2), (1, 2), (2, 2), (1, 2), (2, 2))  # frames and bands that are joined after each stage
_LAYERS = 19  # convolutions with a bias; the last one has none


@dataclass(frozen=True)
class SpeechEmbeddingSizes:
    """Channels of each of the five stages, and features of a token."""

    channels: tuple[int, ...] = (24, 48, 72, 96, 96)
    width: int = 96

    def __post_init__(self) -> None:
        if len(self.channels) != len(_POOLS) or any(type(c) is not int or not 1 <= c <= 4096 for c in self.channels):
            raise ModelError(f"channels must be {len(_POOLS)} numbers from 1 to 4096, got {self.channels}")


@final
class SpeechEmbedding(AudioBackbone):
    """A token per 8 frames of 10 ms, each of the 76 frames from there on.

    The network only ever looks at neighbours and its strides divide the step, so that it runs over the whole clip at
    once and finds what it finds window by window.  A token is real where its frames lie within the clip; a clip
    shorter than one window has one token, in silence from its end on.
    """

    def __init__(self, modality: Modality, sizes: SpeechEmbeddingSizes, precision: Precision) -> None:
        super().__init__(modality, sizes, precision)
        frames = max((modality.max_samples - BINS) // HOP + 1, FRAMES)
        self.samples = (frames - 1) * HOP + BINS
        self.width, self.grid = sizes.width, ((frames - FRAMES) // STEP + 1,)
        convolution = partial(GridConv2d, precision=precision)
        layers, inputs = [convolution(1, sizes.channels[0], 3, padding=(0, 1))], sizes.channels[0]
        for stage, channels in enumerate(sizes.channels):
            for pair in range(2 if stage else 1):
                layers.append(convolution(channels if pair else inputs, channels, (1, 3), padding=(0, 1)))
                layers.append(convolution(channels, channels, (3, 1)))
            inputs = channels
        self.layers = nn.ModuleList(layers)
        self.last = convolution(inputs, sizes.width, (3, 1), bias=False)
        self.register_buffer("bank", _bank(), persistent=False)
        self.bank: Tensor

    @classmethod
    def read_sizes(cls, sizes: Mapping[str, Any]) -> SpeechEmbeddingSizes:
        """Check plain values.  Raises ModelError."""
        return make(SpeechEmbeddingSizes, sizes, channels=tuple)

    @classmethod
    def read(cls, folder: Folder, image: tuple[int, int] | None) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """The usual sizes, and tensors, which bear the names of the ONNX file's initialisers in the folder."""
        cls.no_image(image)
        sources = {"last.weight": (f"model/conv2d_{_LAYERS}/Conv2D/ReadVariableOp:0",)}
        for number in range(_LAYERS):
            layer = f"model/conv2d_{number}" if number else "model/conv2d"
            for end, theirs in (("weight", "weights"), ("bias", "bias")):
                sources[f"layers.{number}.{end}"] = (f"{layer}/Conv2D_{theirs}_fused_bn",)
        return {}, folder.renamed(sources)

    def forward(self, raw: Tensor) -> Tokens:
        """raw: (batch, samples) float32 → tokens.x: (batch, tokens, width)"""
        x, real = self.log_mel(raw)
        x, number = x.unsqueeze(1), 0
        for stage, pool in enumerate(_POOLS):
            for _ in range(4 if stage else 3):
                x = functional.leaky_relu(self.layers[number](x), 0.2).clamp(min=-0.4)
                number += 1
            x = functional.max_pool2d(x, pool)
        x = self.last(x).squeeze(3).transpose(1, 2)
        mask = torch.cat([real[:, :1], real[:, FRAMES - 1 + STEP :: STEP]], dim=1)
        return Tokens(x, mask)

    def log_mel(self, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Decibels below 80 under the clip's loudest are cut; a tenth of them, plus 2.

        raw: (batch, samples) float32 → (batch, frames, mels), (batch, frames) bool where a frame lies within the clip
        """
        wave, within = fitted(raw, self.samples)
        early = (BINS - WINDOW) // 2  # the window lies in the middle of its frame
        frames = (self.samples - BINS) // HOP + 1
        middle = wave[:, early : early + (frames - 1) * HOP + WINDOW] * _FULL_SCALE
        bank = _bank() if torch.compiler.is_exporting() else self.bank
        real = within[:, BINS - 1 :: HOP]
        mel = power(middle, window=WINDOW, hop=HOP, bins=BINS) @ bank
        decibels = 10 * mel.clamp(min=1e-10).log10()
        decibels = decibels.masked_fill(~real.unsqueeze(-1), -100.0)
        loudest = decibels.amax(dim=(1, 2), keepdim=True)
        return torch.maximum(decibels, loudest - _RANGE_DB) / 10 + 2, real


def _bank() -> Tensor:
    return slaney_bank(bins=BINS, mels=MELS, low=60.0, high=3800.0)
