"""BERT and MiniLM encoders (Devlin et al. 2019; Wang et al. 2020)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, final

from torch import Tensor, nn

from triptych.errors import ModelError
from triptych.model.backbones.folder import Folder
from triptych.model.backbones.layer import PostNorm, activation_of, padding_bias, stack
from triptych.model.backbones.words import TextBackbone, TextSizes, layer_names
from triptych.model.config import Precision
from triptych.schema import Modality
from triptych.tokens import Tokens

_LAYER = {
    "query_key_value": ("attention.self.query", "attention.self.key", "attention.self.value"),
    "out": ("attention.output.dense",),
    "mix_norm": ("attention.output.LayerNorm",),
    "up": ("intermediate.dense",),
    "down": ("output.dense",),
    "channel_norm": ("output.LayerNorm",),
}


@final
class Bert(TextBackbone):
    """Post-norm layers over the sum of a word's and its place's embedding; every text is of the first segment."""

    model_types: ClassVar[frozenset[str]] = frozenset({"bert"})
    frame: ClassVar[tuple[str, str]] = ("[CLS]", "[SEP]")

    def __init__(self, modality: Modality, sizes: TextSizes, precision: Precision) -> None:
        super().__init__(modality, sizes, precision)
        self.norm = nn.LayerNorm(sizes.width, eps=sizes.epsilon)
        self.layers = stack(PostNorm, sizes, precision)

    @classmethod
    def read(cls, folder: Folder, image: tuple[int, int] | None) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Sizes and tensors; the pooler is left out, and the first segment's embedding joins the places'."""
        cls.no_image(image)
        if folder.config.get("position_embedding_type", "absolute") != "absolute":
            raise ModelError(f"{folder.path} uses relative positions; only absolute ones are supported")
        if folder.config.get("is_decoder"):
            raise ModelError(f"{folder.path} is a decoder; give an encoder")
        sizes = cls.plain(folder, activation=activation_of(folder.config.get("hidden_act", "gelu")))
        sources: dict[str, tuple[str, ...]] = {
            "embed.weight": ("embeddings.word_embeddings.weight",),
            "position.weight": ("embeddings.position_embeddings.weight",),
            "segment": ("embeddings.token_type_embeddings.weight",),
            "norm.weight": ("embeddings.LayerNorm.weight",),
            "norm.bias": ("embeddings.LayerNorm.bias",),
            **layer_names(sizes["depth"], "encoder.layer.{}.", _LAYER),
        }
        spare = r"pooler\..*|embeddings\.position_ids|cls\..*|classifier\..*"
        tensors = folder.renamed(sources, prefix="bert.", spare=spare)
        tensors["position.weight"] = tensors["position.weight"] + tensors.pop("segment")[0]
        return sizes, tensors

    def forward(self, raw: Tensor) -> Tokens:
        """raw: (batch, tokens) int64, 0 is padding → tokens.x: (batch, tokens, width)"""
        mask = raw != 0
        x = self.norm(self.embed(raw) + self.position.rows(raw.shape[1]))
        bias = padding_bias(mask, x)
        for layer in self.layers:
            x = layer(x, bias)
        return Tokens(x, mask)

    @classmethod
    def read_sizes(cls, sizes: Mapping[str, Any]) -> TextSizes:
        """Sizes without a projection."""
        made = super().read_sizes(sizes)
        if made.projection:
            raise ModelError("this family has no projection")
        return made
