"""What a search may try can be built, exported shapes and all."""

from __future__ import annotations

import optuna
import pytest

from triptych.algorithm import MergeTokens, compress
from triptych.data.dataset import Dataset
from triptych.model.build import build
from triptych.schema import Modality, Schema
from triptych.search.space import STARTS, default_space


@pytest.mark.parametrize("seed", range(6))
def test_candidates_are_smaller_than_the_network_they_start_from(tiny_data: Dataset, seed: int) -> None:
    model = build("late_fusion", tiny_data.schema, depth=4).eval()
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    recipe = [t for t in default_space(study.ask(), tiny_data.schema) if not isinstance(t, MergeTokens)]
    lean = compress(model, recipe, tiny_data)
    assert sum(p.numel() for p in lean.parameters()) < sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("start", [s for group in STARTS.values() for s in group])
def test_every_start_is_within_the_space(tiny_data: Dataset, start: dict[str, object]) -> None:
    trial = optuna.trial.FixedTrial(start)
    assert default_space(trial, tiny_data.schema)  # type: ignore[arg-type]
    assert set(trial.params) == set(start)


def test_sizes_suit_the_resolution_of_each_modality() -> None:
    audio = Modality("audio", "audio", sample_rate=16_000, max_samples=64_000, channels=1)
    image = Modality("image", "image", height=28, width=28, channels=1)
    series = Modality("series", "series", frames=72, channels=2, center=(0.0, 0.0), scale=(1.0, 1.0))
    schema = Schema("x", (audio, image, series), "y", "classification", "accuracy", ("a", "b"))
    coarse = {**STARTS["student"][0], "tokens": "coarse"}
    (student,) = default_space(optuna.trial.FixedTrial(coarse), schema)  # type: ignore[arg-type]
    special = dict(student.modalities)  # type: ignore[attr-defined]
    assert dict(special["audio"])["shrink"] == 2
    assert dict(special["image"])["patch"] == 7
    assert dict(special["series"]) == {"frames_per_token": 36, "form": "summary"}  # 50 would pad 72 frames to 100
