"""Learn from the original's answers."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import ClassVar, final

from triptych.algorithm.teaching.finetune import Train
from triptych.algorithm.technique import Context, Range, Space
from triptych.train.losses import Distillation, Objective


@final
@dataclass(frozen=True)
class Distill(Train):
    """Train with the original network as teacher (Hinton et al. 2015).  Further knobs: see `Train`.

    alpha:          share of the teacher's answers in the loss; the rest is the task's loss
    temperature:    how much the answers are softened
    feature_weight: weight of matching the teacher's similarities between examples, per modality
    """

    space: ClassVar[Space] = {**Train.space, "alpha": Range(0.1, 0.9), "temperature": Range(1, 6)}
    alpha: float = 0.5
    temperature: float = 2.0
    feature_weight: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_number("alpha", "in [0, 1]", 0, 1)
        self.require_number("temperature", "in [0.1, 100]", 0.1, 100)
        self.require_number("feature_weight", "in [0, 1000]", 0, 1000)

    def objective(self, context: Context) -> Objective | None:
        """Distance from the original's answers, and the task's loss."""
        teacher = copy.deepcopy(context.original).eval().requires_grad_(False)
        return Distillation(teacher, self.alpha, self.temperature, self.feature_weight)
