"""Training: one loop for every network, objective and device."""

from triptych.train.config import TrainConfig
from triptych.train.contrastive import ContrastiveLoss
from triptych.train.evaluate import evaluate, predict
from triptych.train.loop import fit, fit_with_history
from triptych.train.losses import Distillation, Objective, TaskLoss

__all__ = [
    "ContrastiveLoss",
    "Distillation",
    "Objective",
    "TaskLoss",
    "TrainConfig",
    "evaluate",
    "fit",
    "fit_with_history",
    "predict",
]
