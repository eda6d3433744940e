"""What networks know of made factors, and whether experts specialise on them; a stage of bench/s3.py."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from main_job import write_json

from triptych.data.factors import SHARED, Factors, Made, factor_of, make_factors
from triptych.model import Multimodal
from triptych.model.s3 import routers
from triptych.train import TrainConfig
from triptych.train.s3 import (
    CONTROLS,
    S3,
    Alignment,
    activation_information,
    activations,
    align,
    features,
    mutual_information,
    selectivity,
)
from triptych.train.s3.probe import logistic

SIZES: dict[str, Any] = {
    "dim": 32,
    "depth": 1,
    "heads": 2,
    "frames_per_token": 4,
    "fusion_depth": 1,
    "head_hidden": 16,
    "dropout": 0.0,
    "expansion": 2.0,
}
GRANULARITY = 4
TRACE_BITS = 0.05
MADE = Factors(noise=1.5, rows={"train": 1600, "validation": 100, "test": 1000})


def measured(out: Path, seeds: int, steps: int) -> dict[str, list[dict[str, Any]]]:
    """Figures of every way to train, one entry a seed; what is there is kept."""
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in ("fresh", "s3", *CONTROLS)}
    for seed in range(seeds):
        made = make_factors(MADE, seed=seed)
        for name, runs in found.items():
            path = out / f"{name}-{seed}.json"
            if not path.exists():
                write_json(path, figures(trained(name, made, seed, steps), made))
            runs.append(json.loads(path.read_text()))
    return found


def trained(name: str, made: Made, seed: int, steps: int) -> Multimodal:
    torch.manual_seed(seed)
    epochs = max(1, round(steps * 128 / len(made.data.train)))
    config = TrainConfig(epochs=epochs, batch_size=128, lr=3e-3, patience=None, precision="float32", seed=seed)
    if name in CONTROLS:
        model = CONTROLS[name].network(made.data.schema, granularity=GRANULARITY, **SIZES)
        return align(model, made.data, config, Alignment(CONTROLS[name].weights))
    from triptych.model.s3 import s3_network

    s3 = S3(s3_network(made.data.schema, granularity=GRANULARITY, spread=4, **SIZES))
    return s3.model if name == "fresh" else s3.specialise(made.data, config).model


def figures(model: Multimodal, made: Made) -> dict[str, Any]:
    """Accuracy of a probe for every factor; with experts, also what they tell about the factors."""
    known, wanted = features(model, made.data.train), features(model, made.data.test)
    guesses = {}
    for name, values in made.factors["train"].items():
        probe = logistic(known, torch.from_numpy(values), MADE.values)
        guesses[name] = probe(wanted).argmax(dim=1).numpy()
    truth = made.factors["test"]
    record: dict[str, Any] = {
        "accuracy": {name: float((guess == truth[name]).mean()) for name, guess in guesses.items()}
    }
    joined = sum(guesses[f"part.{name}"] for name in MADE.modalities) % MADE.values
    record["joined"] = float((joined == truth["together"]).mean())  # parts read apart, then put together
    if routers(model):
        record |= specialised(model, made)
    return record


def specialised(model: Multimodal, made: Made) -> dict[str, Any]:
    """Bits that experts tell: about what a token shows, and about the value that it shows."""
    gates = activations(model, made.data.test)
    shows, works, about = [], [], []
    for name, gate in gates.items():
        kinds = [made.frames[name][place * SIZES["frames_per_token"]] for place in range(gate.shape[1])]
        best = gate.argmax(dim=2).numpy()
        shows.append(np.tile([number_of(kind) for kind in kinds], (len(best), 1)).ravel())
        works.append(best.ravel())
        parts = [factor_of(part, name) for part in (SHARED, "unique", "part")]
        used = gate.sum(dim=1).numpy()
        about.append([activation_information(used, made.factors["test"][factor]) for factor in parts])
    bits = np.array(about).transpose(1, 0, 2).reshape(3, -1)  # factors, (modalities · experts)
    return {
        "place_bits": mutual_information(np.concatenate(works), np.concatenate(shows)),
        "value_bits": {part: float(row.max()) for part, row in zip(("shared", "unique", "part"), bits, strict=True)},
        "selectivity": telling(bits),
    }


def number_of(kind: str) -> int:
    """A number per sort of factor and modality."""
    names = ["shared", *(f"{part}.{name}" for part in ("unique", "part") for name in MADE.modalities)]
    return names.index(kind)


def telling(bits: np.ndarray) -> float:
    """Mean selectivity of the experts that tell more than a trace; 0 where none does.  bits: (factors, experts)"""
    some = bits.sum(axis=0) > TRACE_BITS
    return float(selectivity(bits[:, some]).mean()) if some.any() else 0.0
