"""Train on after a cut."""

from __future__ import annotations

import dataclasses
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, final

from triptych.algorithm.technique import Context, Needs, Range, Space, Technique
from triptych.model.multimodal import Multimodal
from triptych.train.config import TrainConfig
from triptych.train.loop import fit
from triptych.train.losses import Objective


@dataclass(frozen=True)
class Train(Technique, ABC):
    """Train the network at hand on the dataset, to win back quality; saves nothing by itself.

    epochs: passes over the training split; 0 means as the training options say
    lr:     peak learning rate; 0 means as the training options say
    """

    saves: ClassVar[frozenset[str]] = frozenset()
    space: ClassVar[Space] = {"lr": Range(1e-5, 3e-3, log=True)}
    epochs: int = 0
    lr: float = 0.0

    def __post_init__(self) -> None:
        self.require_number("epochs", "a whole number from 0 to 100000", 0, 100_000, whole=True)
        self.require_number("lr", "in [0, 1]", 0, 1)

    @property
    def needs(self) -> Needs:
        """A dataset with targets."""
        return Needs.TRAINING

    @abstractmethod
    def objective(self, context: Context) -> Objective | None:
        """What to minimise; None is the task's loss."""

    def apply(self, model: Multimodal, context: Context) -> Multimodal:
        """Train a copy with the context's options and these knobs.

        What the objective prepares, such as teachers' answers, counts against `max_seconds`, down to half of it.
        """
        start = time.monotonic()
        data = context.dataset()
        config = context.train or TrainConfig()
        config = dataclasses.replace(
            config, seed=context.seed, epochs=self.epochs or config.epochs, lr=self.lr or config.lr
        )
        objective = self.objective(context)
        if (most := config.max_seconds) is not None:
            config = dataclasses.replace(config, max_seconds=max(most / 2, most - (time.monotonic() - start)))
        return fit(model, data, config, objective=objective, progress=context.progress)


@final
@dataclass(frozen=True)
class Finetune(Train):
    """Train on the task alone: the control of `Distill`.  Knobs: see `Train`."""

    def objective(self, context: Context) -> Objective | None:  # noqa: ARG002
        """The task's loss."""
        return None
