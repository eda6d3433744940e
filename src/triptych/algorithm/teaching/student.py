"""A smaller network from scratch, to be taught afterwards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, final

import torch

from triptych.algorithm.rebuild import edited, fresh_model
from triptych.algorithm.technique import Context, Range, Space, Technique
from triptych.algorithm.weights.layers import stacks_of
from triptych.algorithm.weights.slicing import kept_units
from triptych.algorithm.weights.trace import trace
from triptych.errors import RecipeError
from triptych.model.build import NAMES, build
from triptych.model.config import ModelConfig
from triptych.model.multimodal import Multimodal

Pairs = tuple[tuple[str, Any], ...]


@final
@dataclass(frozen=True)
class Student(Technique):
    """Replace the network by a smaller one with fresh weights; put `Distill` or `Finetune` after it.

    network:    a name of `build`, such as 'late_fusion', or 'dual_encoder' for retrieval; empty means the shape of the
                network at hand, made smaller
    fraction:   share of that network's blocks, widths, heads and channels, where `network` is empty
    sizes:      sizes of the named network, fields of `triptych.model.Sizes`, as pairs or a mapping
    modalities: other sizes for single modalities or kinds, as pairs or a mapping
    """

    saves: ClassVar[frozenset[str]] = frozenset({"params", "size", "flops", "latency"})
    space: ClassVar[Space] = {"fraction": Range(0.2, 0.8)}
    network: str = ""
    fraction: float = 0.5
    sizes: Pairs = ()
    modalities: Pairs = ()

    def __post_init__(self) -> None:
        self.require_fraction()
        self.require("network", f"empty or one of {sorted(NAMES)}", holds=self.network in ("", *NAMES))
        for knob in ("sizes", "modalities"):
            object.__setattr__(self, knob, self._pairs(knob))
        rule = "left out when `network` is empty; name a network to give sizes"
        self.require("sizes", rule, holds=bool(self.network) or not (self.sizes or self.modalities))

    def _pairs(self, knob: str) -> Pairs:
        given: Any = getattr(self, knob)
        try:
            return _frozen(dict(given))
        except (TypeError, ValueError) as error:
            raise RecipeError(f"Student.{knob} must map names to values, got {given!r}") from error

    def apply(self, model: Multimodal, context: Context) -> Multimodal:
        """Build the student.  Raises RecipeError unless it is smaller than the network that it replaces."""
        student = self._build(model, context)
        size, limit = (sum(p.numel() for p in network.parameters()) for network in (student, model))
        if size > limit or (size == limit and self.fraction < 1):
            raise RecipeError(f"the student has {size} parameters, the network at hand {limit}; choose smaller sizes")
        return student

    def _build(self, model: Multimodal, context: Context) -> Multimodal:
        if not self.network:
            return fresh_model(shrunk(model, self.fraction), model, seed=context.seed)
        if bool(NAMES[self.network]) != bool(model.config.fusion):
            fitting = sorted(name for name, fusion in NAMES.items() if bool(fusion) == bool(model.config.fusion))
            task = model.schema.task
            raise RecipeError(f"a {self.network!r} is no student for {task}; choose of {fitting}")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(context.seed)
            sizes = {"exits": model.config.exits, **dict(self.sizes)}
            special = {name: dict(changes) for name, changes in self.modalities}
            student = build(self.network, model.schema, modalities=special, **sizes)
        return student.to(next(model.parameters()).device).eval()


def shrunk(model: Multimodal, fraction: float) -> ModelConfig:
    """The config of a network with a fraction of every stack's blocks and of every kind of unit."""
    config = model.config
    for group in trace(model):
        multiple = 1 if group.kind == "heads" else 8
        config = edited(config, group.path, kept_units(group.count, fraction, multiple=multiple))
    for path, blocks in stacks_of(config).items():
        if blocks:
            config = edited(config, path, blocks[: kept_units(len(blocks), fraction)])
    return config


def _frozen(values: Mapping[str, Any]) -> Pairs:
    return tuple(sorted((key, _frozen_value(value)) for key, value in values.items()))


def _frozen_value(value: Any) -> Any:
    if isinstance(value, list | tuple) and all(isinstance(item, str) for item in value):  # mixers over the depth
        return tuple(value)
    return _frozen(dict(value)) if isinstance(value, Mapping | tuple) else value
