"""Both halves of CLIP (Radford et al. 2021)."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, final

import torch
from torch import Tensor

from triptych.model.backbones.caption import LAYER, CaptionBackbone, caption_tensors, halves
from triptych.model.backbones.folder import Folder
from triptych.model.backbones.layer import activation_of
from triptych.model.backbones.vision import VisionBackbone, flat_patches, patch_grid, pixel_facts, placed
from triptych.model.backbones.words import layer_names

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
_EITHER = {"num_hidden_layers": 12, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5, "projection_dim": 512}
_VISION = {
    **_EITHER,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_attention_heads": 12,
    "image_size": 224,
    "patch_size": 32,
}
_TEXT = {
    **_EITHER,
    "vocab_size": 49_408,
    "hidden_size": 512,
    "intermediate_size": 2048,
    "num_attention_heads": 8,
    "max_position_embeddings": 77,
}
_OTHERS = r"logit_scale|(?:vision|text)_model\..*|(?:visual|text)_projection\.weight|.*position_ids"


@final
class ClipVision(VisionBackbone):
    """A class token and patches, all normalised at the end and, in a whole CLIP, projected to the common space.

    take='first' is the image's embedding.
    """

    model_types: ClassVar[frozenset[str]] = frozenset({"clip", "clip_vision_model"})

    @classmethod
    def read(cls, folder: Folder, image: tuple[int, int] | None) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Sizes and tensors."""
        half = dataclasses.replace(folder, config=halves(folder.config, "vision_config", _VISION))
        old, new, patch = patch_grid(half, image)
        projected = "visual_projection.weight" in folder.tensors
        sizes = {
            "rows": new[0],
            "columns": new[1],
            "patch": patch,
            "leading": 1,
            "width": half.number("hidden_size"),
            "depth": half.number("num_hidden_layers"),
            "heads": half.number("num_attention_heads"),
            "hidden": half.number("intermediate_size"),
            "activation": activation_of(half.config["hidden_act"]),
            "epsilon": half.number("layer_norm_eps"),
            "entry_norm": True,
            "projection": folder.number("projection_dim", 512) if projected else 0,
            **pixel_facts(folder, MEAN, STD),
        }
        sources: dict[str, tuple[str, ...]] = {
            "lead.weight": ("embeddings.class_embedding",),
            "position.weight": ("embeddings.position_embedding.weight",),
            "project.weight": ("embeddings.patch_embedding.weight",),
            "entry.weight": ("pre_layrnorm.weight",),
            "entry.bias": ("pre_layrnorm.bias",),
            "norm.weight": ("post_layernorm.weight",),
            "norm.bias": ("post_layernorm.bias",),
            **layer_names(sizes["depth"], "encoder.layers.{}.", LAYER),
            **({"last.weight": ("visual_projection.weight",)} if projected else {}),
        }
        tensors = folder.renamed(sources, prefix="vision_model.", spare=_OTHERS)
        position = tensors["position.weight"]
        return sizes, {
            **tensors,
            "lead.weight": tensors["lead.weight"].reshape(1, -1) + position[:1],
            "position.weight": placed(position[1:], old, new),
            "project.weight": flat_patches(tensors["project.weight"]),
            "project.bias": torch.zeros(len(tensors["project.weight"])),
        }


@final
class ClipText(CaptionBackbone):
    """Causal layers; in a whole CLIP every token is projected to the common space.

    take='last' is the text's embedding, read at the last special token.
    """

    model_types: ClassVar[frozenset[str]] = frozenset({"clip", "clip_text_model"})
    frame: ClassVar[tuple[str, str]] = ("<|startoftext|>", "<|endoftext|>")
    causal: ClassVar[bool] = True

    @classmethod
    def read(cls, folder: Folder, image: tuple[int, int] | None) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Sizes and tensors."""
        cls.no_image(image)
        half = dataclasses.replace(folder, config=halves(folder.config, "text_config", _TEXT))
        projected = "text_projection.weight" in folder.tensors
        projection = folder.number("projection_dim", 512) if projected else 0
        sizes = cls.plain(half, activation=activation_of(half.config["hidden_act"]), projection=projection)
        last = {"last.weight": ("text_projection.weight",)} if projected else {}
        tensors = caption_tensors(folder, sizes["depth"], last, spare=_OTHERS)
        return sizes, {**tensors, **({"last.bias": torch.zeros(projection)} if projected else {})}
