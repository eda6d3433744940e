"""The real data packs and easy-VQA load as they are described."""

from __future__ import annotations

import tomllib

import numpy as np
import pytest

from triptych.data.loader import batches
from triptych.data.read import load_data

PACKS = ("avdigits", "fashion", "icu", "mosi", "ravdess", "sisfall")


@pytest.mark.realdata
@pytest.mark.parametrize("pack", PACKS)
def test_a_pack_loads_as_described(real_data, pack):
    described = tomllib.loads((real_data / pack / "dataset.toml").read_text())
    data = load_data(real_data / pack, cache_bytes=0)
    assert {name: len(split) for name, split in data.splits.items()} == described["counts"]
    assert data.schema.names == tuple(described["modalities"])
    assert data.schema.metric == described["metric"]
    assert data.schema.classes == tuple(described["target"].get("classes", ()))
    assert data.about["licence_class"] == described["licence_class"]
    batch = next(batches(data.validation, batch_size=16, seed=0))
    for modality in data.schema.modalities:
        array = batch.inputs[modality.name].numpy()
        assert array.dtype == {"image": np.uint8, "text": np.int64}.get(modality.kind, np.float32)
        assert not np.isinf(array.astype(np.float64)).any()
        if modality.kind in {"series", "table"}:
            assert np.isfinite(modality.center).all()
            assert min(modality.scale) > 0
    if described.get("group", {}).get("disjoint"):
        people = [set(groups) for groups in data.groups.values()]
        assert sum(map(len, people)) == len(set.union(*people))


@pytest.mark.realdata
def test_another_target_of_a_pack_drops_unknown_rows(real_data):
    data = load_data(real_data / "fashion", target="usage", on_bad="drop")
    assert data.schema.target == "usage"
    assert all((split.targets >= 0).all() for split in data.splits.values())
    assert set().union(*(split.dropped for split in data.splits.values())) <= {"missing target"}


def test_easy_vqa():
    pytest.importorskip("easy_vqa")
    data = load_data("easy-vqa")
    assert len(data.schema.classes) == 13
    assert sum(map(len, data.splits.values())) == 38575 + 9673
    assert len(data.test) == 9673
    pictures = {name: set(groups) for name, groups in data.groups.items()}
    assert {name: len(found) for name, found in pictures.items()} == {"train": 3600, "validation": 400, "test": 1000}
    assert not pictures["train"] & pictures["validation"]
    example = data.train.example(7)
    assert example["image"].shape == (64, 64, 3)
    assert 0 < len(example["question"]) <= data.schema["question"].max_tokens
    batch = next(batches(data.train, batch_size=8, seed=0))
    assert batch.inputs["image"].shape == (8, 64, 64, 3)
    assert not batch.present
