"""A run as the chain would record it, with made-up figures and hostile names."""

import math
from typing import Any

import numpy as np
import pytest

from triptych.report import RunRecord, drawable
from triptych.schema import Modality, Schema

HOSTILE = '<script>alert("x")</script>'
CLASSES = ("happy", "sad", "angry", "afraid", HOSTILE, "neutral")


def schema() -> Schema:
    return Schema(
        "clips",
        (
            Modality("image", "image", height=64, width=64, channels=3),
            Modality("audio", "audio", channels=1, sample_rate=8000, max_samples=8000),
            Modality("text", "text", max_tokens=12, vocabulary=50),
            Modality("motion", "series", channels=3, rate_hz=50, frames=100, fields=("x", "y", "z")),
            Modality("vitals", "table", fields=("age", "pulse", HOSTILE)),
        ),
        target="emotion",
        task="classification",
        metric="accuracy",
        classes=CLASSES,
    )


def example(i: int) -> dict[str, Any]:
    rng = np.random.default_rng(i)
    time = np.linspace(0, 1, 8000, dtype=np.float32)
    y, x = np.mgrid[0:64, 0:64]
    hues = rng.uniform(0.3, 1, 3)
    pixels = (128 + 120 * np.sin((x[..., None] * hues + y[..., None] * hues[::-1]) / 6 + i)).astype(np.uint8)
    motion = np.cumsum(rng.normal(size=(100, 3)), axis=0).astype(np.float32)
    motion[30:36, 0] = math.nan
    values = {
        "image": pixels,
        "audio": np.sin(400 * time) * np.exp(-((time - 0.5) ** 2) * 20) * (0.5 + 0.5 * np.sin(30 * time * (i + 1))),
        "text": f"no. {i}: {HOSTILE} & friends said hello",
        "motion": motion,
        "vitals": np.array([40 + i, 71.5, math.nan], np.float32),
    }
    if i == 3:
        values["audio"] = None
    right = i % 3 != 1
    return {
        "id": f"clip-{i}",
        "true": CLASSES[i % 6],
        "predicted": CLASSES[i % 6 if right else (i + 1) % 6],
        "confidence": 0.55 + 0.05 * (i % 8),
        "right": right,
        "inputs": {m.name: drawable(m, values[m.name]) for m in schema().modalities},
    }


def figures(quality: float, p50_ms: float, size_mb: float, peak_mb: float, spread: float = 0.018) -> dict[str, Any]:
    return {
        "quality": quality,
        "quality_interval": [quality - spread, quality + spread],
        "p50_s": p50_ms / 1e3,
        "p95_s": p50_ms / 1e3 * 1.2,
        "size_bytes": size_mb * 1e6,
        "peak_bytes": peak_mb * 1e6,
        "peak_bytes_total": (peak_mb + 31) * 1e6,
        "params": size_mb * 250_000,
        "flops": p50_ms * 1e7,
    }


def sample_run() -> dict[str, Any]:
    counts = np.random.default_rng(0).integers(0, 6, (6, 6)) + np.diag([52, 47, 55, 38, 61, 44])
    record = RunRecord(
        dataset=f"clips {HOSTILE}",
        schema=schema().to_dict(),
        budget={"p50_s": 0.005, "size_bytes": 2e6, "peak_bytes": 40e6, "max_drop": 0.02, "energy_j": None},
        reports={
            "reference": {**figures(0.881, 12.1, 10.2, 49), "loyalty": 1.0},
            "lean": {**figures(0.874, 2.31, 1.42, 31), "loyalty": 0.962, "p50_ratio_interval": [0.18, 0.204]},
            "small dense": {**figures(0.842, 2.9, 1.6, 33), "loyalty": 0.901},
            "random tokens": {**figures(0.826, 4.1, 9.9, 44), "loyalty": 0.88},
        },
        chosen="lean",
        steps=[
            {"name": "trained model", **figures(0.883, 12.1, 10.2, 49)},
            {
                "name": "KeepTokens",
                "settings": {"fraction": 0.5, "scorer": "class attention"},
                **figures(0.885, 8.2, 10.2, 44),
            },
            {
                "name": "PruneChannels",
                "settings": {"fraction": 0.4},
                "note": "tuned for 6 epochs",
                **figures(0.871, 3.4, 4.9, 38),
            },
            {"name": "Distill", "settings": {"epochs": 10}, **figures(0.879, 3.4, 4.9, 38)},
            {"name": "Int8", "settings": {"weights": "per channel"}, **figures(0.876, 2.31, 1.42, 31)},
        ],
        rejected=[
            {
                "name": "MergeTokens",
                "settings": {"fraction": 0.7},
                "reason": "slower than doing nothing: 12.9 ms",
                **figures(0.88, 12.9, 10.2, 50),
            },
            {"name": "Sparsity", "settings": "2:4", "reason": f"{HOSTILE} lost to its control"},
        ],
        modalities={
            "image": {
                "kind": "image",
                "p50_s": 0.0011,
                "params": 160_000,
                "worth": 0.21,
                "worth_interval": [0.18, 0.24],
                "alone": 0.62,
            },
            "audio": {"kind": "audio", "p50_s": 0.0008, "params": 120_000, "worth": 0.13, "alone": 0.55},
            "text": {"kind": "text", "p50_s": 0.0001, "params": 30_000, "worth": 0.02, "alone": 0.31},
            "motion": {"kind": "series", "p50_s": 0.0002, "params": 41_000, "worth": -0.004, "alone": 0.22},
            "vitals": {"kind": "table", "p50_s": None, "params": 900, "worth": None, "alone": None},
        },
        confusion={"classes": CLASSES, "counts": counts},
        examples=[example(i) for i in range(8)],
        environment={
            "CPU": "2 cores",
            "threads": 1,
            "packages": {"onnxruntime": "1.32.0", "numpy": "2.4.6"},
            "dataset hash": "9f2c" * 16,
        },
        headline={"wall_s": 742.0},
    )
    return record.to_dict()


@pytest.fixture
def run() -> dict[str, Any]:
    return sample_run()
