"""Learn from the answers of the original and of its fellow teachers."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import ClassVar, final

import torch

from triptych.algorithm.teaching.finetune import Train
from triptych.algorithm.technique import Context, Range, Space
from triptych.train.evaluate import predict
from triptych.train.losses import Distillation, Objective


@final
@dataclass(frozen=True)
class Distill(Train):
    """Train with the original network, and its fellow teachers, as teacher (Hinton et al. 2015).

    Further knobs: see `Train`.

    alpha:          share of the teacher's answers in the loss; the rest is the task's loss
    temperature:    how much the answers are softened
    feature_weight: weight of matching the teacher's similarities between examples, per modality
    ask:            'always', about every augmented row; or 'once', about every training row as it is, which costs a
                    fraction; features can only be matched when asking always
    """

    space: ClassVar[Space] = {**Train.space, "alpha": Range(0.1, 0.9), "temperature": Range(1, 6)}
    alpha: float = 0.5
    temperature: float = 2.0
    feature_weight: float = 0.0
    ask: str = "always"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_number("alpha", "in [0, 1]", 0, 1)
        self.require_number("temperature", "in [0.1, 100]", 0.1, 100)
        self.require_number("feature_weight", "in [0, 1000]", 0, 1000)
        self.require("ask", "'always' or 'once'", holds=self.ask in {"always", "once"})
        self.require("ask", "'always' when features are matched", holds=self.ask == "always" or not self.feature_weight)

    def objective(self, context: Context) -> Objective | None:
        """Distance from the teachers' answers, and the task's loss."""
        networks = (context.original, *context.teachers)
        teachers = [copy.deepcopy(network).eval().requires_grad_(requires_grad=False) for network in networks]
        answers = None
        if self.ask == "once":
            answers = torch.stack([torch.from_numpy(predict(t, context.dataset().train)) for t in teachers])
        return Distillation(teachers, self.alpha, self.temperature, self.feature_weight, remembered=answers)
