"""Sparse upcycling (Komatsuzaki et al. 2023; CuMo for multimodal networks): experts that start as copies."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from triptych.errors import ModelError
from triptych.model.config import BlockConfig, ConnectorConfig, EncoderConfig, FusionConfig, ModelConfig, SharedConfig
from triptych.model.multimodal import Multimodal


def upcycle(
    model: Multimodal, *, experts: int = 8, active: int = 2, router: str = "top_k", seed: int = 0
) -> Multimodal:
    """A copy whose perceptrons are mixtures of experts, each a copy of the perceptron, with fresh routers.

    A token's gates add up to one, so that it answers what the dense network answers until training parts the experts
    (with a router by which every token is chosen: not 'expert_choice').  With one active expert the gate is always one
    and only auxiliary losses train the router; take two.  Raises ModelError where there is no perceptron to copy.
    """
    if model.config.adapter is not None:
        raise ModelError("a network with an adapter cannot be upcycled; merge it first")
    changed = _Change(experts, active, router)
    config = changed.network(model.config)
    if config == model.config:
        raise ModelError("this network has no block with channel='mlp' to make experts of")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        sparse = Multimodal(config, model.schema)
    dense = model.state_dict()
    tensors = {name: _from_dense(name, own, dense) for name, own in sparse.state_dict().items()}
    sparse.load_state_dict(tensors)
    return sparse.to(next(model.parameters()).device).train(model.training)


def _from_dense(name: str, own: Tensor, dense: Mapping[str, Tensor]) -> Tensor:
    """A tensor of the sparse network: the dense one's, all experts' copies of it, or its own where it is new."""
    if name in dense:
        return dense[name]
    source = dense.get(name.replace(".mlps.", "."))
    return own if source is None else source.expand_as(own)


@dataclasses.dataclass(frozen=True)
class _Change:
    experts: int
    active: int
    router: str

    def network(self, config: ModelConfig) -> ModelConfig:
        encoders = {name: self.encoder(encoder) for name, encoder in config.encoders.items()}
        shared: SharedConfig | None = self.stack(config.shared)
        fusion: FusionConfig | None = self.stack(config.fusion)
        return dataclasses.replace(config, encoders=encoders, shared=shared, fusion=fusion)

    def encoder(self, config: EncoderConfig) -> EncoderConfig:
        connector: ConnectorConfig | None = self.stack(config.connector)
        stacked: EncoderConfig = self.stack(config)
        return dataclasses.replace(stacked, connector=connector)

    def stack(self, config: Any) -> Any:
        """A config with blocks, or None."""
        return config and dataclasses.replace(config, blocks=tuple(map(self.block, config.blocks)))

    def block(self, block: BlockConfig) -> BlockConfig:
        if block.channel != "mlp":
            return block
        return dataclasses.replace(
            block, channel="experts", experts=self.experts, active=self.active, router=self.router, gates="normalised"
        )
