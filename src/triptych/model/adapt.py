"""Adapting a network: something small is trained, the rest stays as it was, and what can be folded in is."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import torch
from torch import nn

from triptych.errors import ModelError
from triptych.model.adapters import adapter_class
from triptych.model.config import AdapterConfig, ModelConfig
from triptych.model.dense import Dense
from triptych.model.multimodal import Multimodal
from triptych.tokens import Batch


def adapt(
    model: Multimodal, adapter: AdapterConfig, data: Iterable[Batch] | None = None, *, seed: int = 0
) -> Multimodal:
    """A copy of a network with an adapter, in which only the adapter and the parts in `adapter.also` are trained.

    data: batches with targets, for 'cache_model' alone.  Raises ModelError where the network has no place for it.
    """
    if model.config.adapter is not None:
        raise ModelError(
            f"this network has the adapter {model.config.adapter.name!r}; merge it first, or go on with it"
        )
    sized, start = adapter_class(adapter.name).begin(model, adapter, data)
    adapted = _fresh(dataclasses.replace(model.config, adapter=sized), model, seed=seed)
    adapted.load_state_dict({**adapted.state_dict(), **model.state_dict(), **start})
    return adapted.train(model.training)


def merge(model: Multimodal) -> Multimodal:
    """The same function without the adapter, its change folded into the weights, all of which may be trained again.

    Raises ModelError without an adapter, and for one that cannot be folded in.
    """
    adapter = model.config.adapter
    if adapter is None or not adapter_class(adapter.name).merges:
        what = "no adapter" if adapter is None else f"{adapter.name!r}, which is no change of weights"
        raise ModelError(f"this network has {what}: nothing to merge; it is exported as it is")
    plain = _fresh(dataclasses.replace(model.config, adapter=None), model)
    tensors = model.state_dict()
    for name, layer in model.named_modules():
        if isinstance(layer, Dense):
            tensors[f"{name}.weight"] = layer.matrix().detach()
    plain.load_state_dict({name: tensors[name] for name in plain.state_dict()})
    return plain.train(model.training)


def merged(model: Multimodal) -> Multimodal:
    """`merge` where there is something to merge, otherwise the network itself."""
    adapter = model.config.adapter
    return merge(model) if adapter is not None and adapter_class(adapter.name).merges else model


def trainable_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Parameters that training changes, by name."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def _fresh(config: ModelConfig, like: Multimodal, *, seed: int = 0) -> Multimodal:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Multimodal(config, like.schema)
    return model.to(next(like.parameters()).device)
