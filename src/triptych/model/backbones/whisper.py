"""The encoder of Whisper (Radford et al. 2023), from the waveform on.

OpenAI's weights are published under the MIT license (openai/whisper); those of Hugging Face's openai/whisper-*
repositories are tagged Apache-2.0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from triptych.errors import ModelError
from triptych.model.backbones.folder import Folder
from triptych.model.backbones.layer import LayerSizes, PreNorm, activation_of, stack
from triptych.model.backbones.waveform import AudioBackbone, fitted, power, slaney_bank
from triptych.model.backbones.words import layer_names
from triptych.model.config import Precision, make
from triptych.model.dense import Embedding
from triptych.schema import Modality
from triptych.tokens import Tokens

WINDOW, HOP = 400, 160  # samples at 16 kHz
_PER_TOKEN = 2 * HOP
_LAYER = {
    "query_key_value": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "out": ("self_attn.out_proj",),
    "mix_norm": ("self_attn_layer_norm",),
    "up": ("fc1",),
    "down": ("fc2",),
    "channel_norm": ("final_layer_norm",),
}


@dataclass(frozen=True)
class WhisperSizes(LayerSizes):
    """Sizes of a Whisper encoder.

    positions: places that it knows, of 20 ms each;  context: places that it runs with, 0 for all.  It was trained with
    all, 30 s whatever a clip's length; fewer are faster and a change that fine-tuning should see.
    """

    positions: int = 1500
    context: int = 0
    mels: int = 80
    epsilon: float = 1e-5

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.context > self.positions:
            raise ModelError(f"context must be at most the {self.positions} positions, got {self.context}")


@final
class Whisper(AudioBackbone):
    """A token per 20 ms.  What lies beyond a clip's end is silence, which is attended to, as in training.

    A token is real where the clip has a sample in its middle; the others hold what the network makes of silence.
    """

    model_types: ClassVar[frozenset[str]] = frozenset({"whisper"})

    def __init__(self, modality: Modality, sizes: WhisperSizes, precision: Precision) -> None:
        super().__init__(modality, sizes, precision)
        context = sizes.context or sizes.positions
        self.mels, self.samples = sizes.mels, context * _PER_TOKEN
        self.width, self.grid = sizes.width, (context,)
        self.entry = nn.Conv1d(sizes.mels, sizes.width, 3, padding=1)
        self.halve = nn.Conv1d(sizes.width, sizes.width, 3, stride=2, padding=1)
        self.position = Embedding(sizes.positions, sizes.width, precision=precision)
        self.layers = stack(PreNorm, sizes, precision)
        self.norm = nn.LayerNorm(sizes.width, eps=sizes.epsilon)
        self.register_buffer("bank", _bank(sizes.mels), persistent=False)
        self.bank: Tensor

    @classmethod
    def read_sizes(cls, sizes: Mapping[str, Any]) -> WhisperSizes:
        """Check plain values.  Raises ModelError."""
        return make(WhisperSizes, sizes)

    @classmethod
    def read(cls, folder: Folder, image: tuple[int, int] | None) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Sizes and tensors of the encoder; keys, which have no bias, get one of zeros."""
        cls.no_image(image)
        sizes = {
            "positions": folder.number("max_source_positions"),
            "mels": folder.number("num_mel_bins"),
            "width": folder.number("d_model"),
            "depth": folder.number("encoder_layers"),
            "heads": folder.number("encoder_attention_heads"),
            "hidden": folder.number("encoder_ffn_dim"),
            "activation": activation_of(folder.config.get("activation_function", "gelu")),
        }
        names = layer_names(sizes["depth"], "encoder.layers.{}.", _LAYER)
        sources: dict[str, tuple[str, ...]] = {"position.weight": ("encoder.embed_positions.weight",), **names}
        for ours, theirs in (("entry", "conv1"), ("halve", "conv2"), ("norm", "layer_norm")):
            sources |= {f"{ours}.{end}": (f"encoder.{theirs}.{end}",) for end in ("weight", "bias")}
        keys = [f"encoder.layers.{number}.self_attn.k_proj.bias" for number in range(sizes["depth"])]
        prefix = "model." if "model.encoder.conv1.weight" in folder.tensors else ""
        zeros = {prefix + key: torch.zeros(sizes["width"]) for key in keys}
        whole = Folder(folder.path, folder.config, {**zeros, **folder.tensors})
        spare = r"decoder\..*|proj_out\..*|projector\..*|classifier\..*"
        return sizes, whole.renamed(sources, prefix=prefix, spare=spare)

    def forward(self, raw: Tensor) -> Tokens:
        """raw: (batch, samples) float32 → tokens.x: (batch, tokens, width)"""
        wave, real = fitted(raw, self.samples)
        x = functional.gelu(self.entry(self.log_mel(wave).transpose(1, 2)))
        x = functional.gelu(self.halve(x)).transpose(1, 2) + self.position.rows(self.grid[0])
        for layer in self.layers:
            x = layer(x)
        return Tokens(self.norm(x), real[:, ::_PER_TOKEN])

    def log_mel(self, wave: Tensor) -> Tensor:
        """Decades of power, cut 8 below the loudest, plus 4, over 4.

        wave: (batch, samples) → (batch, 2 · tokens, mels)
        """
        half = WINDOW // 2
        around = functional.pad(wave.unsqueeze(1), (half, half), mode="reflect").squeeze(1)[:, :-HOP]
        bank = _bank(self.mels) if torch.compiler.is_exporting() else self.bank
        mel = power(around, window=WINDOW, hop=HOP, bins=WINDOW) @ bank
        decades = mel.clamp(min=1e-10).log10()
        loudest = decades.amax(dim=(1, 2), keepdim=True)
        return (torch.maximum(decades, loudest - 8.0) + 4.0) / 4.0


def _bank(mels: int) -> Tensor:
    return slaney_bank(bins=WINDOW, mels=mels, low=0.0, high=8000.0)
