"""What a search may try: functions from an Optuna trial to a recipe."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from optuna import Trial

from triptych.algorithm import MergeTokens, PruneChannels, PruneHeads, PruneLayers, PruneWidth, Student, Technique
from triptych.schema import Modality, Schema

Space = Callable[[Trial, Schema], Sequence[Technique]]

STARTS: Mapping[str, Sequence[Mapping[str, Any]]] = {
    "student": (
        {"route": "student", "dim": 64, "depth": 2, "mixer": "token_mixing", "tokens": "medium"},
        {"route": "student", "dim": 48, "depth": 2, "mixer": "attention", "tokens": "medium"},
        {"route": "student", "dim": 64, "depth": 2, "mixer": "depthwise", "tokens": "fine"},
        {"route": "student", "dim": 48, "depth": 1, "mixer": "token_mixing", "tokens": "coarse"},
        {"route": "student", "dim": 32, "depth": 0, "mixer": "attention", "tokens": "coarse"},
    ),
    "pruned": ({"route": "pruned", "width": 0.5, "channels": 0.25, "heads": 0.5, "layers": 0.5, "merge": 0.5},),
}

_GRAIN: Mapping[str, Mapping[str, Any]] = {
    "fine": {"patch": 8, "hop_s": 0.016, "max_tokens": 60, "mels": 48, "frames_per_token": 10},
    "medium": {"patch": 8, "hop_s": 0.020, "max_tokens": 40, "mels": 40, "frames_per_token": 15},
    "coarse": {"patch": 16, "hop_s": 0.040, "max_tokens": 25, "mels": 32, "frames_per_token": 50},
}


def default_space(trial: Trial, schema: Schema) -> list[Technique]:
    """A fresh student, or the reference cut down; which one serves better differs from dataset to dataset."""
    route = trial.suggest_categorical("route", ["student", "pruned"])
    return _student(trial, schema) if route == "student" else _pruned(trial)


def _student(trial: Trial, schema: Schema) -> list[Technique]:
    dim = trial.suggest_categorical("dim", [16, 24, 32, 48, 64, 96])
    sizes = {
        "dim": dim,
        "depth": trial.suggest_int("depth", 0, 3),
        "mixer": trial.suggest_categorical("mixer", ["token_mixing", "depthwise", "attention"]),
        "heads": max(1, dim // 16),
        "kernel": 5,
        "expansion": 2.0,
        "hidden": 2 * dim,
        "head_hidden": 2 * dim,
        "dropout": 0.05,
        "mask": False,
        "squash": "softsign",
    }
    grain = trial.suggest_categorical("tokens", sorted(_GRAIN))
    special = tuple((m.name, changes) for m in schema.modalities if (changes := _suited(m, grain)))
    sizes |= _GRAIN[grain]
    network = "dual_encoder" if schema.task == "retrieval" else "late_fusion"
    return [Student(network=network, sizes=tuple(sizes.items()), modalities=special)]


def _suited(modality: Modality, grain: str) -> dict[str, Any]:
    """Sizes that suit a modality's resolution.

    Finer patches for tiny images, half the rate for wide-band audio, runs of frames that need the least padding, and
    statistics of long runs.
    """
    side = max(modality.height, modality.width)
    if modality.kind == "image" and side <= 32:
        return {"patch": 7}
    if modality.kind == "image" and side >= 112:
        return {"patch": 16}
    if modality.kind == "series":
        tokens = -(-modality.frames // _GRAIN[grain]["frames_per_token"])
        form = {"form": "summary"} if grain == "coarse" else {}
        return {"frames_per_token": -(-modality.frames // tokens), **form}
    return {"shrink": 2} if modality.kind == "audio" and modality.sample_rate >= 16_000 else {}


def _pruned(trial: Trial) -> list[Technique]:
    recipe: list[Technique] = [
        PruneLayers(trial.suggest_float("layers", 0.25, 1.0)),
        PruneHeads(trial.suggest_float("heads", 0.25, 1.0)),
        PruneChannels(trial.suggest_float("channels", 0.1, 1.0)),
        PruneWidth(trial.suggest_float("width", 0.2, 1.0)),
    ]
    merge = trial.suggest_float("merge", 0.25, 1.0)
    return recipe if merge > 0.9 else [*recipe, MergeTokens(fraction=merge, method="pool")]
