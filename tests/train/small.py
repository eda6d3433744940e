"""A small network and short runs for the tests of training."""

from __future__ import annotations

from typing import Any

import torch

from triptych.data.dataset import Dataset
from triptych.model import Multimodal, build
from triptych.train import TrainConfig

SIZES: dict[str, Any] = {
    "dim": 16,
    "depth": 1,
    "heads": 2,
    "expansion": 2.0,
    "patch": 4,
    "hop_s": 0.02,
    "window_s": 0.04,
    "mels": 8,
    "max_tokens": 10,
    "frames_per_token": 4,
    "hidden": 16,
    "head_hidden": 16,
    "fusion_depth": 1,
}


def network(data: Dataset, *, seed: int = 0, **sizes: Any) -> Multimodal:
    """A network for the data."""
    torch.manual_seed(seed)
    return build("late_fusion", data.schema, **{**SIZES, **sizes})


def config(**options: Any) -> TrainConfig:
    """A short run in float32."""
    return TrainConfig(**{"epochs": 2, "batch_size": 16, "lr": 3e-3, "precision": "float32", **options})


def same(first: torch.nn.Module, second: torch.nn.Module) -> bool:
    """Bit for bit."""
    other = second.state_dict()
    return all(t.equal(other[name]) for name, t in first.state_dict().items())
