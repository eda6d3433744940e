"""The state of a run between two steps, and its way into a checkpoint and back."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from triptych.errors import TrainingError
from triptych.train.checkpoint import Checkpoint
from triptych.train.config import TrainConfig
from triptych.train.evaluate import Score

if TYPE_CHECKING:
    from triptych.model.multimodal import Multimodal

Record = dict[str, Any]

_FREE = frozenset({"checkpoint_every_s", "workers", "eval_batch_size", "max_seconds"})  # may differ after a resume


@dataclass
class Counters:
    """Where a run stands."""

    step: int = 0
    elapsed_s: float = 0.0  # up to the last save
    validated_at: int = -1  # step of the last validation
    stale: int = 0  # validations since the best one
    best: Score | None = None
    last: Score | None = None
    loss_sum: float = 0.0  # over the steps since the last validation
    loss_steps: int = 0
    finished: bool = False
    history: list[Record] = field(default_factory=list)

    def to_dict(self) -> Record:
        """Plain JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Counters:
        """Read what `to_dict` wrote."""
        scores = {k: None if record[k] is None else Score(**record[k]) for k in ("best", "last")}
        return cls(**{**record, **scores})


@dataclass
class RunState:
    """Everything that changes during a run.

    network: model and trained objective, whose parameters are optimised
    average: copy of the model that holds the averaged weights, or None
    best:    weights of the best validated model so far
    """

    network: nn.Module
    average: Multimodal | None
    optimizer: Optimizer
    best: dict[str, Tensor]
    counters: Counters

    def pack(self, identity: Mapping[str, Any]) -> Checkpoint:
        """The state as tensors and plain values.  identity: what a resumed run must agree on"""
        parts = {"network.": self.network.state_dict(), "best.": self.best, "optimizer.": self._moments()}
        if self.average is not None:
            parts["average."] = self.average.state_dict()
        tensors = {prefix + name: t for prefix, part in parts.items() for name, t in part.items()}
        return Checkpoint(tensors, {"identity": dict(identity), "counters": self.counters.to_dict()})

    def unpack_(self, checkpoint: Checkpoint, identity: Mapping[str, Any]) -> None:
        """Take over a saved state.  Raises TrainingError when it belongs to another run."""
        check_identity(checkpoint.record["identity"], identity)
        try:
            self.network.load_state_dict(checkpoint.part("network."))
            if self.average is not None:
                self.average.load_state_dict(checkpoint.part("average."))
            self._set_moments_(checkpoint.part("optimizer."))
            self.counters = Counters.from_dict(checkpoint.record["counters"])
        except (RuntimeError, KeyError, TypeError) as error:
            raise TrainingError(f"the checkpoint was made for another network: {error}") from error
        self.best = checkpoint.part("best.")

    def _moments(self) -> dict[str, Tensor]:
        moments = self.optimizer.state
        named = [(name, p) for name, p in self.network.named_parameters() if p in moments]
        return {f"{name}:{key}": t for name, p in named for key, t in moments[p].items()}

    def _set_moments_(self, moments: Mapping[str, Tensor]) -> None:
        parameters = dict(self.network.named_parameters())
        self.optimizer.state.clear()
        for key, tensor in moments.items():
            name, _, moment = key.rpartition(":")
            parameter = parameters[name]
            self.optimizer.state[parameter][moment] = tensor.to(parameter.device)


def identity_of(config: TrainConfig, *, data: str, precision: torch.dtype, steps: int) -> Record:
    """What two runs must share for one to continue the other.  data: the dataset's fingerprint"""
    options = {k: v for k, v in config.to_dict().items() if k not in _FREE}
    return {**options, "data": data, "precision": str(precision), "steps": steps}


def check_identity(saved: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Raise TrainingError that names what differs."""
    keys = sorted(saved.keys() | wanted.keys())
    changed = [f"{k}: {saved.get(k)!r} then, {wanted.get(k)!r} now" for k in keys if saved.get(k) != wanted.get(k)]
    if changed:
        raise TrainingError(
            f"the checkpoint belongs to another run ({'; '.join(changed)}); "
            "use the same options and data, or train into an empty folder"
        )
