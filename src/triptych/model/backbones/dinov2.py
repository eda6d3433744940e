"""DINOv2 (Oquab et al. 2024), also with registers (Darcet et al. 2024)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, final

import torch
from torch import Tensor

from triptych.errors import ModelError
from triptych.model.backbones.folder import Folder
from triptych.model.backbones.layer import activation_of
from triptych.model.backbones.vision import (
    VisionBackbone,
    flat_patches,
    patch_grid,
    pixel_facts,
    placed,
)
from triptych.model.backbones.words import layer_names

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet
_LAYER = {
    "query_key_value": ("attention.attention.query", "attention.attention.key", "attention.attention.value"),
    "out": ("attention.output.dense",),
    "mix_norm": ("norm1",),
    "up": ("mlp.fc1",),
    "down": ("mlp.fc2",),
    "channel_norm": ("norm2",),
}


@final
class Dinov2(VisionBackbone):
    """Layers with norms first; the scale of each layer's output is folded into its last product."""

    model_types: ClassVar[frozenset[str]] = frozenset({"dinov2", "dinov2_with_registers"})

    @classmethod
    def read(cls, folder: Folder, image: tuple[int, int] | None) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Sizes and tensors."""
        if folder.config.get("use_swiglu_ffn") or not folder.config.get("qkv_bias", True):
            raise ModelError(f"{folder.path} has gated perceptrons or no bias on queries; take a smaller DINOv2")
        registers = folder.config.get("model_type") == "dinov2_with_registers"
        old, new, patch = patch_grid(folder, image)
        sizes = {
            "rows": new[0],
            "columns": new[1],
            "patch": patch,
            "leading": 1 + (folder.number("num_register_tokens", 4) if registers else 0),
            "width": folder.number("hidden_size"),
            "depth": folder.number("num_hidden_layers"),
            "heads": folder.number("num_attention_heads"),
            "hidden": round(folder.number("hidden_size") * folder.number("mlp_ratio", 4)),
            "activation": activation_of(folder.config.get("hidden_act", "gelu")),
            "epsilon": folder.number("layer_norm_eps", 1e-6),
            **pixel_facts(folder, MEAN, STD),
        }
        sources = dinov2_names(sizes["depth"])
        if registers:
            sources["registers"] = ("embeddings.register_tokens",)
        tensors = folder.renamed(sources, prefix="dinov2.", spare=r"embeddings\.mask_token|classifier\..*")
        return sizes, folded(tensors, old, new)


def dinov2_names(depth: int) -> dict[str, Sequence[str]]:
    """The folder's names by ours; 'scale' names are folded away later."""
    layers = {
        f"layers.{number}.scale{turn}": (f"encoder.layer.{number}.layer_scale{turn}.lambda1",)
        for number in range(depth)
        for turn in (1, 2)
    }
    return {
        "lead.weight": ("embeddings.cls_token",),
        "position.weight": ("embeddings.position_embeddings",),
        "project.weight": ("embeddings.patch_embeddings.projection.weight",),
        "project.bias": ("embeddings.patch_embeddings.projection.bias",),
        "norm.weight": ("layernorm.weight",),
        "norm.bias": ("layernorm.bias",),
        **layer_names(depth, "encoder.layer.{}.", _LAYER),
        **layers,
    }


def folded(tensors: Mapping[str, Tensor], old: tuple[int, int], new: tuple[int, int]) -> dict[str, Tensor]:
    """A backbone's own tensors from those of `dinov2_names` and perhaps 'registers'."""
    own = dict(tensors)
    for name in [name for name in own if ".scale" in name]:
        scale = own.pop(name)
        layer, _, turn = name.rpartition(".scale")
        last = f"{layer}.out" if turn == "1" else f"{layer}.down"
        own[f"{last}.weight"] = own[f"{last}.weight"] * scale.unsqueeze(1)
        own[f"{last}.bias"] = own[f"{last}.bias"] * scale
    position = own["position.weight"].flatten(0, -2)
    lead = own["lead.weight"].flatten(0, -2) + position[:1]
    registers = own.pop("registers", None)
    smooth = registers is not None  # the networks with registers shrink their places with a filter
    own["lead.weight"] = lead if registers is None else torch.cat([lead, registers.flatten(0, -2)])
    own["position.weight"] = placed(position[1:], old, new, antialias=smooth)
    own["project.weight"] = flat_patches(own["project.weight"])
    return own
