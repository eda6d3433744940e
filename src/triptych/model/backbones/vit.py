"""Vision transformers with a class token (Dosovitskiy et al. 2021, ViT)."""

from __future__ import annotations

from typing import Any, ClassVar, final

from torch import Tensor

from triptych.errors import ModelError
from triptych.model.backbones.folder import Folder
from triptych.model.backbones.layer import activation_of
from triptych.model.backbones.vision import VisionBackbone, flat_patches, patch_grid, pixel_facts, placed
from triptych.model.backbones.words import layer_names

_HALF = (0.5, 0.5, 0.5)
_LAYER = {
    "query_key_value": ("attention.attention.query", "attention.attention.key", "attention.attention.value"),
    "out": ("attention.output.dense",),
    "mix_norm": ("layernorm_before",),
    "up": ("intermediate.dense",),
    "down": ("output.dense",),
    "channel_norm": ("layernorm_after",),
}


@final
class Vit(VisionBackbone):
    """Layers with norms first over a class token and patches."""

    model_types: ClassVar[frozenset[str]] = frozenset({"vit"})

    @classmethod
    def read(cls, folder: Folder, image: tuple[int, int] | None) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Sizes and tensors; heads for a task are left out."""
        if not folder.config.get("qkv_bias", True):
            raise ModelError(f"{folder.path} has no bias on queries, keys and values; only networks with one are read")
        old, new, patch = patch_grid(folder, image)
        sizes = {
            "rows": new[0],
            "columns": new[1],
            "patch": patch,
            "leading": 1,
            "width": folder.number("hidden_size"),
            "depth": folder.number("num_hidden_layers"),
            "heads": folder.number("num_attention_heads"),
            "hidden": folder.number("intermediate_size"),
            "activation": activation_of(folder.config.get("hidden_act", "gelu")),
            "epsilon": folder.number("layer_norm_eps", 1e-12),
            **pixel_facts(folder, _HALF, _HALF),
        }
        sources: dict[str, tuple[str, ...]] = {
            "lead.weight": ("embeddings.cls_token",),
            "position.weight": ("embeddings.position_embeddings",),
            "project.weight": ("embeddings.patch_embeddings.projection.weight",),
            "project.bias": ("embeddings.patch_embeddings.projection.bias",),
            "norm.weight": ("layernorm.weight",),
            "norm.bias": ("layernorm.bias",),
            **layer_names(sizes["depth"], "encoder.layer.{}.", _LAYER),
        }
        tensors = folder.renamed(sources, prefix="vit.", spare=r"pooler\..*|classifier\..*|embeddings\.mask_token")
        return sizes, with_class_token(tensors, old, new)


def with_class_token(tensors: dict[str, Tensor], old: tuple[int, int], new: tuple[int, int]) -> dict[str, Tensor]:
    """Split the table of places: the class token takes its own place along, the patches' is fitted to the new grid."""
    position = tensors["position.weight"].flatten(0, -2)
    return {
        **tensors,
        "project.weight": flat_patches(tensors["project.weight"]),
        "lead.weight": tensors["lead.weight"].flatten(0, -2) + position[:1],
        "position.weight": placed(position[1:], old, new),
    }
