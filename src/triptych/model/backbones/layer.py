"""The transformer layers that pretrained backbones are made of (Vaswani et al. 2017)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional

from triptych.errors import ModelError
from triptych.model.config import Precision
from triptych.model.dense import Dense
from triptych.model.mixers.multi_head import BARRED

_MAX_DEPTH = 256

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": functional.gelu,
    "gelu_tanh": lambda x: functional.gelu(x, approximate="tanh"),
    "quick_gelu": lambda x: x * torch.sigmoid(1.702 * x),
    "relu": functional.relu,
}
_NAMES = {"gelu_pytorch_tanh": "gelu_tanh", "gelu_new": "gelu_tanh"}


def activation_of(name: object) -> str:
    """Our name of a Hugging Face activation.  Raises ModelError on one that is not known."""
    ours = _NAMES.get(str(name), str(name))
    if ours not in ACTIVATIONS:
        raise ModelError(f"unknown activation {name!r}; known are {sorted([*ACTIVATIONS, *_NAMES])}")
    return ours


def check_layers(*, width: int, depth: int, heads: int, activation: str) -> None:
    """Raise ModelError unless a stack of such layers can be built."""
    if width % heads:
        raise ModelError(f"the width of a backbone must be a multiple of its heads, got {width} and {heads}")
    if depth > _MAX_DEPTH:
        raise ModelError(f"a backbone has at most {_MAX_DEPTH} layers, got {depth}")
    if activation not in ACTIVATIONS:
        raise ModelError(f"activation must be one of {sorted(ACTIVATIONS)}, got {activation!r}")


@dataclass(frozen=True)
class LayerSizes:
    """Sizes of a stack of layers.  hidden: width inside the perceptrons;  epsilon: of the norms"""

    width: int = 768
    depth: int = 12
    heads: int = 12
    hidden: int = 3072
    activation: str = "gelu"
    epsilon: float = 1e-12

    def __post_init__(self) -> None:
        check_layers(width=self.width, depth=self.depth, heads=self.heads, activation=self.activation)


class Layer(nn.Module, ABC):
    """Attention and a two-layer perceptron, each with a norm and a way around."""

    def __init__(
        self, width: int, heads: int, hidden: int, *, activation: str, epsilon: float, precision: Precision
    ) -> None:
        super().__init__()
        self.heads, self.activation = heads, ACTIVATIONS[activation]
        self.query_key_value = Dense(width, 3 * width, precision=precision)
        self.out = Dense(width, width, precision=precision)
        self.up = Dense(width, hidden, precision=precision)
        self.down = Dense(hidden, width, precision=precision)
        self.mix_norm = nn.LayerNorm(width, eps=epsilon)
        self.channel_norm = nn.LayerNorm(width, eps=epsilon)

    @abstractmethod
    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """x: (batch, tokens, width), bias: what logits gain, broadcast to (batch, heads, tokens, tokens)"""

    def _mixed(self, x: Tensor, bias: Tensor | None) -> Tensor:
        parts = self.query_key_value(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(parts[0], parts[1], parts[2], attn_mask=bias)
        out: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return out

    def _channelled(self, x: Tensor) -> Tensor:
        out: Tensor = self.down(self.activation(self.up(x)))
        return out


@final
class PreNorm(Layer):
    """x + mix(norm x), x + channel(norm x), as in ViT, CLIP and SigLIP."""

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """x: (batch, tokens, width) → the same"""
        x = x + self._mixed(self.mix_norm(x), bias)
        return x + self._channelled(self.channel_norm(x))


@final
class PostNorm(Layer):
    """norm(x + mix x), norm(x + channel x), as in BERT."""

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """x: (batch, tokens, width) → the same"""
        x = self.mix_norm(x + self._mixed(x, bias))
        out: Tensor = self.channel_norm(x + self._channelled(x))
        return out


def stack(layer: type[Layer], sizes: LayerSizes, precision: Precision) -> nn.ModuleList:
    """Layers of the same sizes, as many as `depth`."""
    shape = (sizes.width, sizes.heads, sizes.hidden)
    return nn.ModuleList(
        layer(*shape, activation=sizes.activation, epsilon=sizes.epsilon, precision=precision)
        for _ in range(sizes.depth)
    )


def padding_bias(mask: Tensor, x: Tensor) -> Tensor:
    """Bar every query from keys that are not real.  mask: (batch, tokens) bool → (batch, 1, 1, tokens)"""
    barred = torch.full_like(x[..., 0], BARRED)
    return torch.where(mask, torch.zeros_like(barred), barred)[:, None, None, :]


def causal_bias(x: Tensor) -> Tensor:
    """Bar every query from later keys.  x: (batch, tokens, width) → (1, 1, tokens, tokens)"""
    place = torch.arange(x.shape[1], device=x.device)
    later = place.unsqueeze(0) > place.unsqueeze(1)
    return later.to(x.dtype)[None, None] * BARRED
