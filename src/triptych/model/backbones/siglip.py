"""Both halves of SigLIP (Zhai et al. 2023)."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, final

from torch import Tensor

from triptych.errors import ModelError
from triptych.model.backbones.caption import LAYER, CaptionBackbone, caption_tensors, halves
from triptych.model.backbones.folder import Folder
from triptych.model.backbones.layer import activation_of
from triptych.model.backbones.vision import VisionBackbone, flat_patches, patch_grid, pixel_facts, placed
from triptych.model.backbones.words import layer_names

_HALF = (0.5, 0.5, 0.5)
_EITHER = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "hidden_act": "gelu_pytorch_tanh",
    "layer_norm_eps": 1e-6,
}
_VISION = {**_EITHER, "image_size": 224, "patch_size": 16}
_TEXT = {**_EITHER, "vocab_size": 32_000, "max_position_embeddings": 64}
_OTHERS = r"logit_scale|logit_bias|(?:vision|text)_model\..*|.*position_ids"
_POOL = {"out": "attention.out_proj", "norm": "layernorm", "up": "mlp.fc1", "down": "mlp.fc2"}
_ENDS = ("weight", "bias")


@final
class SiglipVision(VisionBackbone):
    """First the token of the pooling head, which is the image's embedding (take='first'), then the patches."""

    model_types: ClassVar[frozenset[str]] = frozenset({"siglip", "siglip_vision_model"})

    @classmethod
    def read(cls, folder: Folder, image: tuple[int, int] | None) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Sizes and tensors."""
        half = dataclasses.replace(folder, config=halves(folder.config, "vision_config", _VISION))
        if not half.config.get("vision_use_head", True):
            raise ModelError(f"{folder.path} has no pooling head; only networks with one are read")
        old, new, patch = patch_grid(half, image)
        sizes = {
            "rows": new[0],
            "columns": new[1],
            "patch": patch,
            "width": half.number("hidden_size"),
            "depth": half.number("num_hidden_layers"),
            "heads": half.number("num_attention_heads"),
            "hidden": half.number("intermediate_size"),
            "activation": activation_of(half.config["hidden_act"]),
            "epsilon": half.number("layer_norm_eps"),
            "pooled": True,
            **pixel_facts(folder, _HALF, _HALF),
        }
        sources: dict[str, tuple[str, ...]] = {
            "position.weight": ("embeddings.position_embedding.weight",),
            "project.weight": ("embeddings.patch_embedding.weight",),
            "project.bias": ("embeddings.patch_embedding.bias",),
            "norm.weight": ("post_layernorm.weight",),
            "norm.bias": ("post_layernorm.bias",),
            **layer_names(sizes["depth"], "encoder.layers.{}.", LAYER),
            "pool.probe.weight": ("head.probe",),
            "pool.in.weight": ("head.attention.in_proj_weight",),
            "pool.in.bias": ("head.attention.in_proj_bias",),
            **{f"pool.{our}.{end}": (f"head.{their}.{end}",) for our, their in _POOL.items() for end in _ENDS},
        }
        tensors = folder.renamed(sources, prefix="vision_model.", spare=_OTHERS)
        for end in _ENDS:  # queries, keys and values lie one after the other
            joined, width = tensors.pop(f"pool.in.{end}"), sizes["width"]
            tensors[f"pool.query.{end}"], tensors[f"pool.key_value.{end}"] = joined[:width], joined[width:]
        return sizes, {
            **tensors,
            "pool.probe.weight": tensors["pool.probe.weight"].reshape(1, -1),
            "position.weight": placed(tensors["position.weight"], old, new),
            "project.weight": flat_patches(tensors["project.weight"]),
        }


@final
class SiglipText(CaptionBackbone):
    """Texts always fill all places with the end token, and every token is projected; take='last' is the embedding."""

    model_types: ClassVar[frozenset[str]] = frozenset({"siglip", "siglip_text_model"})
    frame: ClassVar[tuple[str, str]] = ("", "</s>")
    fill: ClassVar[bool] = True
    causal: ClassVar[bool] = False

    @classmethod
    def read(cls, folder: Folder, image: tuple[int, int] | None) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Sizes and tensors."""
        cls.no_image(image)
        half = dataclasses.replace(folder, config=halves(folder.config, "text_config", _TEXT))
        projection = half.number("projection_size", half.number("hidden_size"))
        sizes = cls.plain(half, activation=activation_of(half.config["hidden_act"]), projection=projection)
        last = {f"last.{end}": (f"head.{end}",) for end in _ENDS}
        return sizes, caption_tensors(folder, sizes["depth"], last, spare=_OTHERS)
