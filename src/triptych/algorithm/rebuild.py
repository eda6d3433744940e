"""Surgery: a network of another shape from the tensors of a given one."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor

from triptych.errors import ModelError
from triptych.model.config import ModelConfig
from triptych.model.multimodal import Multimodal

T = TypeVar("T")
Path = tuple[str | int, ...]


def edited(part: T, path: Path, value: Any) -> T:
    """A copy of a config tree with one value replaced.  path: field names, mapping keys and tuple indices"""
    if not path:
        return value  # type: ignore[no-any-return]
    step, rest = path[0], path[1:]
    tree: Any = part
    if isinstance(tree, Mapping):
        return {**tree, step: edited(tree[step], rest, value)}  # type: ignore[return-value]
    if isinstance(tree, tuple) and isinstance(step, int):
        return (*tree[:step], edited(tree[step], rest, value), *tree[step + 1 :])  # type: ignore[return-value]
    inner = edited(getattr(tree, str(step)), rest, value)
    return dataclasses.replace(tree, **{str(step): inner})  # type: ignore[no-any-return]


def rebuild(model: Multimodal, config: ModelConfig, tensors: Mapping[str, Tensor] | None = None) -> Multimodal:
    """A network of shape `config` with the tensors of `model`, or `tensors` in their place; in evaluation mode.

    Only the ranges of activations may be missing or left over.  Raises ModelError when the tensors do not fit.
    """
    given = model.state_dict() if tensors is None else tensors
    fresh = fresh_model(config, model)
    wanted = fresh.state_dict()
    if odd := sorted(name for name in wanted.keys() ^ given.keys() if not name.endswith((".low", ".high"))):
        raise ModelError(f"the tensors do not fit the new shape; only on one side: {odd[:6]}")
    if odd := sorted(name for name in wanted.keys() & given.keys() if wanted[name].shape != given[name].shape):
        raise ModelError(f"the tensors do not fit the new shape; of another size: {odd[:6]}")
    fresh.load_state_dict({name: given[name].clone() if name in given else own for name, own in wanted.items()})
    return fresh


def fresh_model(config: ModelConfig, like: Multimodal, *, seed: int = 0) -> Multimodal:
    """A network with fresh weights on the device of another one; the global random state is left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Multimodal(config, like.schema)
    return model.to(next(like.parameters()).device).eval()
