"""Structured pruning: whole heads, channels and features go, so that tensors really shrink."""

from __future__ import annotations

from abc import ABC
from dataclasses import dataclass
from typing import ClassVar, final

from triptych.algorithm.rebuild import rebuild
from triptych.algorithm.technique import Context, Needs, Range, Space, Technique
from triptych.algorithm.weights.importance import CALIBRATED, NAMES, Importance, scores
from triptych.algorithm.weights.slicing import keep_units, kept_units
from triptych.algorithm.weights.trace import Group, Kind, trace
from triptych.errors import RecipeError
from triptych.model.multimodal import Multimodal


@dataclass(frozen=True)
class Prune(Technique, ABC):
    """Keep a `fraction` of the units of one kind in every group, those that matter most.

    fraction:   share of the units that stays; rounded, but below one at least one unit of each group goes
    importance: how units are ranked, see `importance.scores`; 'random' is the control
    modalities: whose encoders to prune; None means all of them and the shared parts
    batches:    calibration batches, for 'activation' and 'taylor'
    """

    saves: ClassVar[frozenset[str]] = frozenset({"params", "size", "flops", "latency"})
    space: ClassVar[Space] = {"fraction": Range(0.1, 0.9), "importance": NAMES}
    kind: ClassVar[Kind]
    multiple: ClassVar[int] = 8
    fraction: float = 0.5
    importance: Importance = "magnitude"
    modalities: tuple[str, ...] | None = None
    batches: int = 8

    def __post_init__(self) -> None:
        self.require_fraction()
        self.require("importance", f"one of {NAMES}", holds=self.importance in NAMES)
        self.require_names("modalities")
        self.require_number("batches", "a whole number from 1 to 10000", 1, 10_000, whole=True)

    @property
    def needs(self) -> Needs:
        """Calibration data where activations or gradients rank the units."""
        return Needs.CALIBRATION if self.importance in CALIBRATED else Needs.NOTHING

    def apply(self, model: Multimodal, context: Context) -> Multimodal:
        """Rank the units of every group and cut the rest out.  Raises RecipeError when there is nothing to cut."""
        groups = self._groups(model)
        if self.fraction == 1:
            return rebuild(model, model.config)
        found = scores(model, groups, self.importance, context, batches=self.batches)
        keep = [kept_units(group.count, self.fraction, multiple=self.multiple) for group in groups]
        best = [score.topk(count).indices.sort().values for score, count in zip(found, keep, strict=True)]
        return keep_units(model, dict(zip(groups, best, strict=True)))

    def _groups(self, model: Multimodal) -> list[Group]:
        if unknown := set(self.modalities or ()) - set(model.schema.names):
            raise RecipeError(f"no modality {sorted(unknown)}; this model has {list(model.schema.names)}")
        wanted = [g for g in trace(model, self.kind) if self.modalities is None or g.modality in self.modalities]
        groups = [group for group in wanted if group.count > 1]
        if not groups:
            raise RecipeError(f"{type(self).__name__} finds nothing to prune: no two units of kind {self.kind!r}")
        return groups


@final
@dataclass(frozen=True)
class PruneHeads(Prune):
    """Keep a fraction of the heads of every attention.  Knobs: see `Prune`."""

    kind: ClassVar[Kind] = "heads"
    multiple: ClassVar[int] = 1


@final
@dataclass(frozen=True)
class PruneChannels(Prune):
    """Keep a fraction of the hidden channels of every two-layer perceptron.  Knobs: see `Prune`."""

    kind: ClassVar[Kind] = "hidden"


@final
@dataclass(frozen=True)
class PruneWidth(Prune):
    """Keep a fraction of the features of every residual stream, from the stem to its readers.  Knobs: see `Prune`."""

    kind: ClassVar[Kind] = "width"
