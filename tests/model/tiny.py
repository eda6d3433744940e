"""Tiny schemas, networks and batches of every modality kind, for the tests of several packages."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from triptych.model import Multimodal, build
from triptych.schema import Modality, Schema
from triptych.tokens import Batch

MODALITIES = (
    Modality("picture", "image", height=16, width=16, channels=1),
    Modality("sound", "audio", channels=1, sample_rate=1000, max_samples=400),
    Modality("words", "text", max_tokens=12, vocabulary=30),
    Modality("motion", "series", frames=20, channels=2, rate_hz=10, center=(0.0, 1.0), scale=(1.0, 2.0)),
    Modality("facts", "table", fields=("a", "b", "c"), center=(0.0, 1.0, 2.0), scale=(1.0, 1.0, 3.0)),
)
MORE = (
    Modality("clip", "video", frames=5, height=8, width=12, channels=1),
    Modality("cloud", "points", max_points=24, channels=3, center=(0.0, 1.0, 0.0), scale=(1.0, 2.0, 1.0)),
    Modality("units", "codes", max_tokens=10, channels=2, vocabulary=9),
)  # taken only where they are named
KINDS = tuple(modality.kind for modality in (*MODALITIES, *MORE))
NAMES = tuple(modality.name for modality in MODALITIES)
NETWORKS = (
    "late_fusion",
    "early_fusion",
    "bottleneck_fusion",
    "cross_fusion",
    "hybrid_fusion",
    "linear_cross_fusion",
    "tensor_fusion",
    "low_rank_fusion",
    "missing_bank_fusion",
    "multiplicative_fusion",
    "product_of_experts_fusion",
    "gated_fusion",
    "perceiver",
    "unified",
)
SIZES: dict[str, Any] = {
    "dim": 16,
    "depth": 2,
    "heads": 2,
    "expansion": 2.0,
    "patch": 4,
    "cells": 8,
    "cell_patch": 4,
    "hop_s": 0.020,
    "window_s": 0.040,
    "mels": 8,
    "max_tokens": 10,
    "frames_per_token": 2,
    "hidden": 16,
    "head_hidden": 16,
    "fusion_depth": 2,
    "bottlenecks": 2,
}


def schema(*names: str, task: str = "classification") -> Schema:
    """The modalities of `MODALITIES`, or the named ones."""
    chosen = tuple(m for m in (*MODALITIES, *MORE) if m.name in (names or NAMES))
    if task == "regression":
        return Schema("tiny", chosen, "y", "regression", "mae", center=2.0, scale=3.0)
    return Schema("tiny", chosen, "y", "classification", "accuracy", classes=("a", "b", "c"))


def network(
    name: str = "late_fusion", *names: str, task: str = "classification", seed: int = 0, **sizes: Any
) -> Multimodal:
    """A network whose every parameter, norms and biases included, is random."""
    torch.manual_seed(seed)
    model = build(name, schema(*names, task=task), **{**SIZES, **sizes})
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return model.eval()


def batch(rows: int = 4, *names: str, seed: int = 0) -> Batch:
    """Random inputs with every sort of gap: short clips and texts, missing samples and fields."""
    generator = torch.Generator().manual_seed(seed)
    made = {name: _made(name, rows, generator) for name in NAMES}
    target = torch.randint(0, 3, (rows,), generator=generator)
    more = {m.name: _made_more(m.name, rows, generator) for m in MORE if m.name in names}
    return Batch({n: x for n, x in {**made, **more}.items() if n in (names or NAMES)}, target=target)


def _made(name: str, rows: int, generator: torch.Generator) -> Tensor:
    lengths = torch.linspace(1.0, 0.5, rows)
    if name == "picture":
        return torch.randint(0, 256, (rows, 16, 16, 1), generator=generator, dtype=torch.uint8)
    if name == "sound":
        wave = torch.randn(rows, 400, generator=generator) * 0.1
        beyond = torch.arange(400) >= (lengths * 400).round().unsqueeze(1)
        return wave.masked_fill(beyond, math.nan)
    if name == "words":
        ids = torch.randint(1, 30, (rows, 12), generator=generator)
        return ids.masked_fill(torch.arange(12) >= (lengths * 12).round().unsqueeze(1), 0)
    shape = (rows, 20, 2) if name == "motion" else (rows, 3)
    values = torch.randn(shape, generator=generator)
    return values.masked_fill(torch.rand(shape, generator=generator) < 0.1, math.nan)


def _made_more(name: str, rows: int, generator: torch.Generator) -> Tensor:
    lengths = torch.linspace(1.0, 0.5, rows)
    if name == "clip":
        return torch.randint(0, 256, (rows, 5, 8, 12, 1), generator=generator, dtype=torch.uint8)
    if name == "cloud":
        cloud = torch.randn(rows, 24, 3, generator=generator)
        return cloud.masked_fill((torch.arange(24) >= (lengths * 24).round().unsqueeze(1)).unsqueeze(-1), math.nan)
    ids = torch.randint(1, 9, (rows, 10, 2), generator=generator)
    return ids.masked_fill((torch.arange(10) >= (lengths * 10).round().unsqueeze(1)).unsqueeze(-1), 0)
