"""Networks by name: a fusion and a few sizes, the same for every modality unless said otherwise."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from triptych.errors import ModelError
from triptych.model.config import (
    BackboneConfig,
    BlockConfig,
    ChannelPer,
    ConnectorConfig,
    EncoderConfig,
    FusionConfig,
    Gates,
    ModelConfig,
    SharedConfig,
    Squash,
    StemConfig,
)
from triptych.model.connectors import connector_class
from triptych.model.fusion import FUSIONS
from triptych.model.multimodal import Multimodal
from triptych.model.presets import PRESETS
from triptych.schema import Modality, Schema

NAMES = {
    "bottleneck_fusion": "bottleneck",
    "cross_fusion": "cross",
    "dual_encoder": "",  # none: two encoders, for retrieval
    "early_fusion": "early",
    "gated_fusion": "gated",
    "hybrid_fusion": "hybrid",
    "late_fusion": "late",
    "linear_cross_fusion": "linear_cross",
    "low_rank_fusion": "low_rank",
    "missing_bank_fusion": "missing_bank",
    "multiplicative_fusion": "multiplicative",
    "perceiver": "perceiver",
    "product_of_experts_fusion": "product_of_experts",
    "tensor_fusion": "tensor",
    "unified": "early",
}
BARE = frozenset({"perceiver", "unified"})  # stems alone; the blocks that would follow stand where all modalities meet


@dataclass(frozen=True)
class Sizes:
    """Sizes of every encoder and of the fusion."""

    dim: int = 128
    depth: int = 4
    heads: int = 4
    head_dim: int = 0  # 0 means dim / heads
    expansion: float = 4.0  # hidden width of the channel block, in units of dim
    mixer: str | tuple[str, ...] = "attention"  # several are spread over the depth, in this order
    kernel: int = 7
    rank: int = 16
    state: int = 16
    factor: float = 5.0
    chunk: int = 16
    channel: str = "mlp"
    knots: int = 5
    experts: int = 8
    active: int = 1
    router: str = "top_k"
    ranks: tuple[int, ...] = ()
    gates: Gates = "softmax"
    channel_per: ChannelPer = "block"
    form: str = ""
    patch: int = 8
    tubelet: int = 2
    cells: int = 32
    cell_patch: int = 4
    shrink: int = 1
    window_s: float = 0.025
    hop_s: float = 0.010
    mels: int = 64
    max_tokens: int = 100
    frames_per_token: int = 10
    averages: int = 4
    width: int = 0
    hidden: int = 128
    squash: Squash = "asinh"
    mask: bool = True
    backbone: BackboneConfig | None = None
    connector: str = ""  # empty means none
    connector_dim: int = 0  # 0 means dim
    connector_depth: int = 2  # layers, where it has any
    fold: int = 2
    queries: int = 8
    fusion_depth: int = 2
    bottlenecks: int = 4
    tensor_dim: int = 8
    tensor_rank: int = 4
    latents: int = 32
    embedding: int = 128
    head_hidden: int = 128
    dropout: float = 0.1
    fill: str = ""
    exits: bool = False


def build(
    name: str, schema: Schema, *, modalities: Mapping[str, Mapping[str, Any]] | None = None, **sizes: Any
) -> Multimodal:
    """A network with fresh weights.

    name:       one of `NAMES`, for example 'late_fusion'.  In 'unified' the modalities share the blocks of their
                encoders, with a joint trunk after them; in 'perceiver' the blocks work among latents that read the
                stems' tokens.  Blocks of its own a modality has there only where `modalities` gives it a depth.
                'dual_encoder' is for retrieval
    sizes:      fields of `Sizes`; 'preset' names some of `PRESETS`, which the others correct
    modalities: other sizes for single modalities or kinds, for example `{"text": {"depth": 1}}`

    Raises ModelError.
    """
    if name not in NAMES:
        raise ModelError(f"unknown network {name!r}; known are {sorted(NAMES)}")
    common = _sizes(Sizes(), sizes)
    special = modalities or {}
    if unknown := special.keys() - set(schema.names) - {m.kind for m in schema.modalities}:
        raise ModelError(f"sizes for unknown modalities {sorted(unknown)}; the schema has {list(schema.names)}")
    own = dataclasses.replace(common, depth=0, channel_per="block") if name in BARE else common
    encoders = {
        m.name: _encoder(m, _sizes(own, {**special.get(m.kind, {}), **special.get(m.name, {})}))
        for m in schema.modalities
    }
    config = ModelConfig(
        encoders=encoders,
        fusion=_fusion(NAMES[name], common, own) if NAMES[name] else None,
        embedding=common.embedding,
        shared=SharedConfig(common.dim, _stack(common)) if name == "unified" else None,
        head_hidden=common.head_hidden,
        dropout=common.dropout,
        exits=common.exits,
        fill=common.fill,
    )
    return Multimodal(config, schema)


def _sizes(base: Sizes, changes: Mapping[str, Any]) -> Sizes:
    changes = dict(changes)
    if preset := changes.pop("preset", ""):
        changes = {**_preset(preset), **changes}
    known = {f.name for f in dataclasses.fields(Sizes)}
    if unknown := changes.keys() - known:
        raise ModelError(f"unknown sizes {sorted(unknown)}; known are {sorted(known)} and 'preset'")
    return dataclasses.replace(base, **changes)


def _preset(name: str) -> Mapping[str, Any]:
    if name not in PRESETS:
        raise ModelError(f"unknown preset {name!r}; known are {sorted(PRESETS)}")
    return PRESETS[name]


def _fusion(name: str, sizes: Sizes, own: Sizes) -> FusionConfig:
    mixer = FUSIONS[name].mixer
    return FusionConfig(
        name=name,
        dim=sizes.dim,
        blocks=(_block(own, mixer),) * sizes.fusion_depth if mixer else (),
        bottlenecks=sizes.bottlenecks,
        tensor_dim=sizes.tensor_dim,
        tensor_rank=sizes.tensor_rank,
        latents=sizes.latents,
        latent_depth=max(1, sizes.depth),
    )


def _stack(sizes: Sizes) -> tuple[BlockConfig, ...]:
    mixers = (sizes.mixer,) if isinstance(sizes.mixer, str) else sizes.mixer
    if not mixers or 0 < sizes.depth < len(mixers):
        raise ModelError(f"{list(mixers)} cannot be spread over {sizes.depth} blocks; give each mixer at least one")
    return tuple(_block(sizes, mixers[number * len(mixers) // sizes.depth]) for number in range(sizes.depth))


def _block(sizes: Sizes, mixer: str) -> BlockConfig:
    return BlockConfig(
        mixer=mixer,
        heads=sizes.heads,
        head_dim=sizes.head_dim or max(1, sizes.dim // sizes.heads),
        kernel=sizes.kernel,
        rank=sizes.rank,
        state=sizes.state,
        factor=sizes.factor,
        chunk=sizes.chunk,
        channel=sizes.channel,
        hidden=round(sizes.dim * sizes.expansion),
        knots=sizes.knots,
        experts=sizes.experts,
        active=sizes.active,
        router=sizes.router,
        ranks=sizes.ranks,
        gates=sizes.gates,
        channel_per=sizes.channel_per,
    )


def _encoder(modality: Modality, sizes: Sizes) -> EncoderConfig:
    stem = StemConfig(**{f.name: getattr(sizes, f.name) for f in dataclasses.fields(StemConfig)})
    blocks = () if modality.kind == "table" else _stack(sizes)
    return EncoderConfig(sizes.dim, stem, blocks, _connector(sizes))


def _connector(sizes: Sizes) -> ConnectorConfig | None:
    if not sizes.connector:
        return None
    own = dataclasses.replace(sizes, dim=sizes.connector_dim or sizes.dim)
    mixer = connector_class(sizes.connector).mixer
    return ConnectorConfig(
        name=sizes.connector,
        dim=own.dim,
        hidden=round(own.dim * own.expansion),
        fold=own.fold,
        queries=own.queries,
        blocks=(_block(own, mixer),) * own.connector_depth if mixer else (),
    )
