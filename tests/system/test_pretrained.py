"""A network on pretrained backbones trains, is saved, compressed and exported as any other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.model import pretrained
from triptych.algorithm import Int8Weights, PruneWidth, compress
from triptych.data.dataset import Dataset
from triptych.data.loader import batches
from triptych.model import Multimodal, build, load_model, save_model
from triptych.model.pretrained import load_backbone, read_backbone
from triptych.system.bundle import export
from triptych.system.runtime import Bundle
from triptych.train import TrainConfig, fit
from triptych.train.evaluate import predict

STEMS = ("encoders.image.stem.backbone", "encoders.text.stem.backbone")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    made = {name: tmp_path_factory.mktemp(name) for name in ("text", "image")}
    pretrained.bert(made["text"])
    pretrained.vit(made["image"])
    return made


def network(data: Dataset, folders: dict[str, Path], *, take: Any = "all", **sizes: Any) -> Multimodal:
    """The image at half its patches' size, so that pixels are resized in the graph; a block after either backbone."""
    text = read_backbone(folders["text"], take=take)
    image = read_backbone(folders["image"], image=(8, 12), take="grid")
    schema = text.tokenized(data.schema.only("image", "text"), "text", max_tokens=6)
    torch.manual_seed(0)
    special = {"text": {**text.stem, "depth": 0}, "image": image.stem}
    common = {"dim": 12, "depth": 1, "heads": 2, "head_hidden": 8, "expansion": 2.0, **sizes}
    model = build("late_fusion", schema, modalities=special, **common)
    load_backbone(model, "text", text)
    load_backbone(model, "image", image)
    return model


def test_texts_are_framed_cropped_and_not_padded_by_the_tokenizer(tiny_data, folders) -> None:
    model = network(tiny_data, folders)
    split = tiny_data.train.with_schema(model.schema)
    batch = next(batches(split, batch_size=48, seed=0))
    ids = batch.inputs["text"]
    ids = ids[batch.present["text"]]
    assert ids.shape[1] == 6
    assert (ids[:, 0] == 2).all()
    assert ((ids == 3).sum(dim=1) == 1).all()
    assert (ids == 0).any()


@pytest.mark.parametrize("freeze", [STEMS, ()])
def test_it_trains_frozen_or_not_and_its_bundle_agrees(tiny_data, folders, freeze, tmp_path: Path) -> None:
    before = network(tiny_data, folders)
    options = TrainConfig(epochs=1, batch_size=16, precision="float32", freeze=freeze)
    after = fit(before, tiny_data, options)
    old = before.state_dict()
    fixed = [name for name in old if name.startswith(STEMS)]
    assert fixed
    assert all(old[name].equal(after.state_dict()[name]) == bool(freeze) for name in fixed if "out.weight" in name)
    assert not old["head.out.weight"].equal(after.head.out.weight)
    check_bundle(after, tiny_data, tmp_path)


@pytest.mark.parametrize(("take", "step"), [("last", Int8Weights()), ("mean", PruneWidth(0.5))])
def test_a_smaller_one_survives_the_disk_and_its_bundle_agrees(tiny_data, folders, take, step, tmp_path: Path) -> None:
    lean = compress(network(tiny_data, folders, take=take), [step], tiny_data)
    save_model(lean, tmp_path / "network")
    again = load_model(tmp_path / "network")
    assert again.config == lean.config
    check_bundle(again, tiny_data, tmp_path)


def check_bundle(model: Multimodal, data: Dataset, folder: Path) -> None:
    """The runtime, which refuses disagreement at export, answers raw rows as the network does."""
    bundle = Bundle.load(export(model, folder / "bundle", data), check_golden=True)
    split = data.validation.with_schema(model.schema)
    wanted = torch.from_numpy(predict(model, split)).softmax(dim=1).numpy()
    rows = [split.raw(row) for row in range(len(split))]
    assert any(value is None for row in rows for value in row.values())
    for answer, shares in zip(bundle.predict_many(rows), wanted, strict=True):
        np.testing.assert_allclose([answer.probabilities[c] for c in model.schema.classes], shares, atol=1e-5)
