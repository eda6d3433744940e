"""Video, points, codes and deep images all the way: a folder, a network in integers, a bundle, a prediction."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from tests.conftest import write_dataset
from tests.model import tiny
from triptych.algorithm import Int8, compress
from triptych.data.dataset import Dataset
from triptych.data.loader import batch_of
from triptych.data.read import load_data
from triptych.model import build
from triptych.system.bundle.export import export
from triptych.system.runtime import Bundle
from triptych.train import TrainConfig, fit

TOML = """
name = "made"
[target]
column = "label"
classes = ["a", "b"]
[modalities.clip]
kind = "video"
[modalities.cloud]
kind = "points"
[modalities.units]
kind = "codes"
vocabulary = 9
[modalities.depth]
kind = "image"
"""


def rows(folder: Path, split: str, count: int) -> dict[str, list[Any]]:
    """Every value in another form than its neighbours: files, bytes, lists."""
    rng = np.random.default_rng(len(split))
    made: dict[str, list[Any]] = {name: [] for name in ("clip", "cloud", "units", "depth", "label")}
    for number in range(count):
        path = f"{split}-{number}.npy"
        np.save(folder / path, rng.integers(0, 256, (4 + number % 2, 8, 12)).astype(np.uint8))
        made["clip"].append(path)
        made["cloud"].append(rng.normal(size=(10 + number % 3, 3)).tolist())
        made["units"].append(rng.integers(0, 8, (6, 2)).tolist())
        stream = io.BytesIO()
        Image.fromarray(rng.integers(800, 1500, (8, 8)).astype(np.uint16)).save(stream, "PNG")
        made["depth"].append({"bytes": stream.getvalue(), "path": None})
        made["label"].append("ab"[number % 2])
    made["cloud"][0] = None
    return made


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("made")
    tables = {name: pa.table(rows(folder, name, 8)) for name in ("train", "validation", "test")}
    return load_data(write_dataset(folder, TOML, tables))


def test_the_schema_is_measured_on_train(data: Dataset) -> None:
    clip, cloud, units, depth = data.schema.modalities
    assert (clip.frames, clip.height, clip.width, clip.channels) == (5, 8, 12, 1)
    assert (cloud.max_points, cloud.channels, len(cloud.center)) == (12, 3, 3)
    assert (units.max_tokens, units.channels, units.vocabulary) == (6, 2, 9)
    assert depth.channels == 1
    assert 1000 < depth.center[0] < 1300
    assert data.schema["depth"].scale[0] > 50


def test_a_bundle_of_integers_answers_like_the_network(data: Dataset, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = build("late_fusion", data.schema, **{**tiny.SIZES, "depth": 0})
    model = fit(model, data, TrainConfig(epochs=1, batch_size=8))
    lean = compress(model, [Int8()], data)
    bundle = Bundle.load(export(lean, tmp_path / "bundle", data))
    value = data.test.raw(1)
    batch = batch_of(data.test, [1])
    with torch.no_grad():
        expected = lean(batch).softmax(dim=1)[0].numpy()
    answer = bundle.predict(**value)
    assert list(answer.probabilities.values()) == pytest.approx(expected.tolist(), abs=1e-3)
    without = bundle.predict(**{**value, "depth": None, "clip": None})
    assert sorted(without.used) == ["cloud", "units"]
