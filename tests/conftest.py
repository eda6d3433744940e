"""Made-up datasets that every part's tests share. Nothing here needs the network or a download."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

SIZES = {"train": 48, "validation": 16, "test": 16}
CLASSES = ("low", "middle", "high")
KINDS = ("image", "audio", "text", "series", "table")

CLASSIFICATION = """
name = "tiny"
task = "classification"
metric = "accuracy"
licence = "none, made up"
split = "random"

[target]
column = "label"
classes = ["low", "middle", "high"]

[other_targets.loud]
column = "loud"
task = "classification"
classes = ["no", "yes"]
positive = "yes"

[group]
column = "person"
disjoint = false

[modalities.image]
kind = "image"
column = "picture"
height = 16
width = 16
channels = 3

[modalities.audio]
kind = "audio"
sample_rate = 8000

[modalities.text]
kind = "text"

[modalities.series]
kind = "series"
channels = 3
rate_hz = 50
frames = 20
channel_names = ["x", "y", "z"]

[modalities.table]
kind = "table"
fields = ["a", "b", "c", "d"]
"""

REGRESSION = """
name = "tiny_regression"
task = "regression"
metric = "acc2"

[target]
column = "score"
range = [-3.0, 3.0]

[modalities.text]
kind = "text"

[modalities.series]
kind = "series"
channels = 2
frames = 16

[modalities.table]
kind = "table"
fields = ["a", "b"]
"""


RETRIEVAL = """
name = "tiny_pairs"
task = "retrieval"
pair = ["photo", "title"]

[modalities.title]
kind = "text"

[modalities.photo]
kind = "image"
height = 16
width = 16
channels = 3
"""


def png(pixels: np.ndarray) -> bytes:
    """Encode (height, width, channels) uint8."""
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(out, "PNG")
    return out.getvalue()


def clip(samples: np.ndarray, rate: int = 8000, form: str = "FLAC", subtype: str | None = None) -> bytes:
    """Encode (samples,) or (samples, channels) float32."""
    import soundfile

    out = io.BytesIO()
    soundfile.write(out, samples, rate, format=form, subtype=subtype)
    return out.getvalue()


def write_dataset(folder: Path, toml: str, tables: dict[str, pa.Table]) -> Path:
    """Write a dataset folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "dataset.toml").write_text(toml, encoding="utf-8")
    for name, table in tables.items():
        pq.write_table(table, folder / f"{name}.parquet")
    return folder


def classification_rows(split: str, count: int, *, missing: bool = True) -> dict[str, list[object]]:
    """Rows of three classes with a signal in each of the five modalities; one row in eight lacks one of them."""
    rng = np.random.default_rng([len(split), count])
    labels = [number % 3 for number in range(count)]
    media = {name: [_made_up(name, label, rng) for label in labels] for name in KINDS}
    if missing:
        for turn, row in enumerate(range(3, count, 8)):
            media[KINDS[turn % len(KINDS)]][row] = None
    return {
        "id": [f"{split}-{number}" for number in range(count)],
        "picture": media.pop("image"),
        **media,
        "label": [CLASSES[label] for label in labels],
        "loud": ["yes" if label == 2 else "no" for label in labels],
        "person": [f"person{number % 4}" for number in range(count)],
    }


def _made_up(kind: str, label: int, rng: np.random.Generator) -> object:
    match kind:
        case "image":
            pixels = rng.integers(0, 90, (16, 16, 3))
            pixels[:, 5 * label : 5 * label + 5, label] += 140
            return {"bytes": png(pixels.astype(np.uint8)), "path": None}
        case "audio":
            time_s = np.arange(1200 + int(rng.integers(0, 400))) / 8000
            tone = 0.4 * np.sin(2 * np.pi * (300, 900, 2200)[label] * time_s)
            return {"bytes": clip((tone + rng.normal(0, 0.05, len(tone))).astype(np.float32)), "path": None}
        case "text":
            words = [("calm", "quiet"), ("plain", "usual"), ("loud", "bright")][label]
            filler = rng.choice(["the", "a", "very", "some"], int(rng.integers(1, 5)))
            return " ".join([*filler, str(rng.choice(words)), "thing"])
        case "series":
            frames = rng.normal(0, 0.3, (20, 3))
            frames[:, label] += np.sin(np.arange(20) / 2) * 2
            frames[rng.integers(0, 20), 0] = np.nan
            return frames.tolist()
        case _:
            fields = rng.normal(0, 0.5, 4) + np.eye(4)[label] * 2
            return fields.tolist()


def regression_rows(split: str, count: int) -> dict[str, list[object]]:
    """Rows with a score from -3 to 3 that text, series and table all tell something about."""
    rng = np.random.default_rng([len(split), count, 1])
    scores = rng.uniform(-3, 3, count)
    words = ["awful bad", "so so", "good great"]
    return {
        "id": [f"{split}-{number}" for number in range(count)],
        "text": [f"this is {words[int((score + 3) // 2.01)]}" for score in scores],
        "series": [(score * np.ones((16, 2)) + rng.normal(0, 0.5, (16, 2))).tolist() for score in scores],
        "table": [
            [float(score + rng.normal(0, 0.5)), float("nan") if i % 5 else 1.0] for i, score in enumerate(scores)
        ],
        "score": scores.astype(np.float32).tolist(),
    }


def pair_rows(split: str, count: int) -> dict[str, list[object]]:
    """Photos and titles that tell one of nine things; the last row repeats the first one's title, in capitals."""
    rng = np.random.default_rng([len(split), count, 2])
    colours, places = ("red", "green", "blue"), ("left", "middle", "right")
    photos: list[object] = []
    for number in range(count):
        pixels = rng.integers(0, 60, (16, 16, 3))
        pixels[:, 5 * (number // 3 % 3) : 5 * (number // 3 % 3) + 5, number % 3] += 180
        photos.append({"bytes": png(pixels.astype(np.uint8)), "path": None})
    titles: list[object] = [f"{colours[n % 3]} bar {places[n // 3 % 3]} no {n}" for n in range(count)]
    titles[-1] = str(titles[0]).upper()
    return {"id": [f"{split}-{number}" for number in range(count)], "photo": photos, "title": titles}


_MEDIA = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
_TYPES = {
    "photo": _MEDIA,
    "picture": _MEDIA,
    "audio": _MEDIA,
    "series": pa.list_(pa.list_(pa.float32())),
    "table": pa.list_(pa.float32()),
    "score": pa.float32(),
}


def as_table(rows: dict[str, list[object]]) -> pa.Table:
    """An arrow table with the column types of the data packs."""
    return pa.table({name: pa.array(values, _TYPES.get(name, pa.string())) for name, values in rows.items()})


@pytest.fixture(scope="session")
def tiny_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a dataset with all five kinds, three classes, 48/16/16 rows. Read-only: copy it to change it."""
    tables = {name: as_table(classification_rows(name, count)) for name, count in SIZES.items()}
    return write_dataset(tmp_path_factory.mktemp("tiny"), CLASSIFICATION, tables)


@pytest.fixture(scope="session")
def tiny_regression(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a regression dataset (metric acc2) with text, series and table. Read-only: copy it to change it."""
    tables = {name: as_table(regression_rows(name, count)) for name, count in SIZES.items()}
    return write_dataset(tmp_path_factory.mktemp("tiny_regression"), REGRESSION, tables)


@pytest.fixture(scope="session")
def tiny_pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a retrieval dataset, photo and title, without a target.  Read-only: copy it to change it."""
    tables = {name: as_table(pair_rows(name, count)) for name, count in SIZES.items()}
    return write_dataset(tmp_path_factory.mktemp("tiny_pairs"), RETRIEVAL, tables)


@pytest.fixture(scope="session")
def tiny_pairs_data(tiny_pairs: Path):
    """The loaded `tiny_pairs`."""
    from triptych.data.read import load_data

    return load_data(tiny_pairs)


@pytest.fixture(scope="session")
def pairs_model(tiny_pairs_data):
    """An untrained network for retrieval whose every parameter is random; embeddings of 12."""
    import torch

    from tests.train.small import SIZES as NETWORK
    from triptych.model import build

    torch.manual_seed(0)
    network = build("dual_encoder", tiny_pairs_data.schema, **{**NETWORK, "embedding": 12}).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return network


@pytest.fixture(scope="session")
def pairs_bundle(pairs_model, tiny_pairs_data, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`pairs_model` as a bundle.  Read-only."""
    from triptych.system.bundle.export import export

    return export(pairs_model, tmp_path_factory.mktemp("pairs") / "bundle", tiny_pairs_data)


@pytest.fixture(scope="session")
def pairs_vectors(pairs_model, tiny_pairs_data) -> dict[str, np.ndarray]:
    """What `pairs_model` gives for the test split, by side."""
    from triptych.train.evaluate import predict

    outputs = predict(pairs_model, tiny_pairs_data.test)
    return dict(zip(tiny_pairs_data.schema.pair, np.split(outputs, 2, axis=1), strict=True))


@pytest.fixture(scope="session")
def tiny_data(tiny_dataset: Path):
    """The loaded `tiny_dataset`."""
    from triptych.data.read import load_data

    return load_data(tiny_dataset)


@pytest.fixture(scope="session")
def tiny_regression_data(tiny_regression: Path):
    """The loaded `tiny_regression`."""
    from triptych.data.read import load_data

    return load_data(tiny_regression)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of the real data packs; skips where they are absent."""
    folder = Path(os.environ.get("TRIPTYCH_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not (folder / "README.md").is_file():
        pytest.skip(f"the real data packs are absent; looked in {folder}, set TRIPTYCH_DATA")
    return folder
