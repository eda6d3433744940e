"""What the text halves of CLIP and SigLIP share: layers with norms first, and ids above the backbone's own by one.

In these backbones id 0 is a word, while our 0 is padding; so the table of words gains a first row for padding.
"""

from __future__ import annotations

from abc import ABC
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from triptych.model.backbones.folder import Folder
from triptych.model.backbones.layer import PreNorm, causal_bias, padding_bias, stack
from triptych.model.backbones.words import TextBackbone, TextSizes, layer_names
from triptych.model.config import Precision
from triptych.model.dense import Dense
from triptych.schema import Modality
from triptych.tokens import Tokens

LAYER = {
    "query_key_value": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "out": ("self_attn.out_proj",),
    "mix_norm": ("layer_norm1",),
    "up": ("mlp.fc1",),
    "down": ("mlp.fc2",),
    "channel_norm": ("layer_norm2",),
}


class CaptionBackbone(TextBackbone, ABC):
    """Words and places, layers, a norm and perhaps a projection.

    causal: whether a word reads the words before it only
    """

    shift: ClassVar[int] = 1
    causal: ClassVar[bool]

    def __init__(self, modality: Modality, sizes: TextSizes, precision: Precision) -> None:
        super().__init__(modality, sizes, precision)
        self.layers = stack(PreNorm, sizes, precision)
        self.norm = nn.LayerNorm(sizes.width, eps=sizes.epsilon)
        self.last = Dense(sizes.width, sizes.projection, precision=precision) if sizes.projection else nn.Identity()

    def forward(self, raw: Tensor) -> Tokens:
        """raw: (batch, tokens) int64, 0 is padding → tokens.x: (batch, tokens, width)"""
        mask = raw != 0
        x = self.embed(raw) + self.position.rows(raw.shape[1])
        bias = padding_bias(mask, x)
        if self.causal:
            bias = torch.minimum(bias, causal_bias(x))
        for layer in self.layers:
            x = layer(x, bias)
        return Tokens(self.last(self.norm(x)), mask)


def caption_tensors(folder: Folder, depth: int, last: Mapping[str, Sequence[str]], *, spare: str) -> dict[str, Tensor]:
    """Tensors of a CLIP or SigLIP text half.  last: of the projection;  spare: what else the folder may hold"""
    sources: dict[str, Sequence[str]] = {
        "embed.weight": ("embeddings.token_embedding.weight",),
        "position.weight": ("embeddings.position_embedding.weight",),
        "norm.weight": ("final_layer_norm.weight",),
        "norm.bias": ("final_layer_norm.bias",),
        **layer_names(depth, "encoder.layers.{}.", LAYER),
        **last,
    }
    tensors = folder.renamed(sources, prefix="text_model.", spare=spare)
    table = tensors["embed.weight"]
    return {**tensors, "embed.weight": torch.cat([torch.zeros_like(table[:1]), table])}


def halves(config: Mapping[str, Any], part: str, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The config of one half of a network of two, with the values that its maker leaves out."""
    inner = config.get(part)
    own = inner if isinstance(inner, Mapping) else config
    return {**defaults, **{key: value for key, value in own.items() if value is not None}}
