"""Networks for S3: blocks that all modalities share, whose channel block is many narrow experts.

S3 is specialise, select, sparsify (seed 004); `triptych.train.s3` trains what is built here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from triptych.errors import ModelError
from triptych.model.build import build
from triptych.model.config import BlockConfig, FusionConfig, ModelConfig, RoutesConfig
from triptych.model.experts import Router
from triptych.model.multimodal import Multimodal
from triptych.schema import Schema


def s3_network(
    schema: Schema,
    *,
    granularity: int = 4,
    spread: int = 4,
    expansion: float = 2.0,
    modalities: Mapping[str, Mapping[str, Any]] | None = None,
    **sizes: Any,
) -> Multimodal:
    """A network with fresh weights: stems, blocks of `granularity` · `spread` experts, late fusion and a head.

    granularity: χ: an expert has 1/χ of the dense block's hidden width, and χ of them work on a token, so that the
                 active parameters are the dense block's
    spread:      ρ: all experts together are ρ dense blocks; 1 gives a mixture in which all experts work on every token
    expansion:   hidden width of the dense block that the experts stand for, in units of `dim`
    sizes, modalities: as of `build`
    Raises ModelError where χ does not divide the hidden width.
    """
    dim = sizes.get("dim", 128)
    if granularity < 1 or spread < 1:
        raise ModelError(f"granularity and spread must be at least 1, got {granularity} and {spread}")
    if round(dim * expansion) % granularity:
        raise ModelError(
            f"the hidden width {round(dim * expansion)} must be a multiple of the granularity {granularity}"
        )
    experts = {
        "channel": "experts",
        "experts": granularity * spread,
        "active": granularity,
        "expansion": expansion / granularity,
    }
    return shared_network(schema, modalities=modalities, **sizes, **experts)


def shared_network(
    schema: Schema, *, modalities: Mapping[str, Mapping[str, Any]] | None = None, **sizes: Any
) -> Multimodal:
    """The same around any channel block: one space for all modalities, in blocks that they share, then late fusion."""
    config = build("unified", schema, modalities=modalities, **sizes).config
    dim = config.shared.dim if config.shared else 0
    return Multimodal(dataclasses.replace(config, fusion=FusionConfig("late", dim)), schema)


def routers(model: nn.Module) -> dict[str, Router]:
    """Every router of a network by its name, in the order of the blocks."""
    return {name: part for name, part in model.named_modules() if isinstance(part, Router)}


def router_share(model: nn.Module) -> float:
    """The routers' part of all parameters, which is what selecting trains."""
    own = sum(p.numel() for router in routers(model).values() for p in router.parameters())
    return own / sum(p.numel() for p in model.parameters())


def with_routes(model: Multimodal, routes: Sequence[RoutesConfig | None]) -> Multimodal:
    """A copy in which blocks with experts work on fewer pairs: one entry for each such block of `expert_blocks`."""
    places = expert_blocks(model.config)
    if len(routes) != len(places):
        raise ModelError(f"{len(routes)} settings for {len(places)} blocks with experts; give one to each")
    config = model.config
    for (owner, number), setting in zip(places, routes, strict=True):
        config = _with_block(config, owner, number, setting)
    copy = Multimodal(config, model.schema).to(next(model.parameters()).device)
    copy.load_state_dict(model.state_dict())
    return copy.train(model.training)


def expert_blocks(config: ModelConfig) -> list[tuple[str, int]]:
    """Blocks with experts in the order in which tokens meet them: a modality, or '' for those that all share, and the
    number of the block there.
    """
    own = [(name, n) for name, encoder in config.encoders.items() for n in _of_experts(encoder.blocks)]
    return own + [("", n) for n in _of_experts(config.shared.blocks if config.shared else ())]


def _of_experts(blocks: Sequence[BlockConfig]) -> list[int]:
    return [number for number, block in enumerate(blocks) if block.channel == "experts"]


def _with_block(config: ModelConfig, owner: str, number: int, routes: RoutesConfig | None) -> ModelConfig:
    part = config.encoders[owner] if owner else config.shared
    blocks = tuple(
        dataclasses.replace(block, routes=routes) if n == number else block
        for n, block in enumerate(part.blocks if part else ())
    )
    if owner:
        encoder = dataclasses.replace(config.encoders[owner], blocks=blocks)
        return dataclasses.replace(config, encoders={**config.encoders, owner: encoder})
    return dataclasses.replace(config, shared=dataclasses.replace(config.shared, blocks=blocks))  # type: ignore[type-var]
