"""Training on what frozen backbones answered once equals training with the backbones in place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.model import pretrained
from triptych.data.dataset import Dataset
from triptych.errors import DataError, TrainingError
from triptych.model import Multimodal, build
from triptych.model.pretrained import load_backbone, read_backbone
from triptych.train import fit
from triptych.train.evaluate import predict
from triptych.train.features import fit_on_features, precompute, put_back

from .small import config

FROZEN = ("encoders.image.stem.backbone", "encoders.text.stem.backbone")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("backbones")
    pretrained.bert(made / "text")
    pretrained.vit(made / "image")
    return made


def network(data: Dataset, folder: Path, *, take: Any = "all") -> Multimodal:
    """A block after the text's tokens, one token of the image, and a table beside."""
    text, image = read_backbone(folder / "text", take=take), read_backbone(folder / "image", take="first")
    schema = text.tokenized(data.schema.only("image", "text", "table"), "text", max_tokens=6)
    torch.manual_seed(0)
    common = {"dim": 16, "heads": 2, "expansion": 1.0, "hidden": 8, "head_hidden": 8, "dropout": 0.0, "depth": 1}
    special = {"text": text.stem, "image": {**image.stem, "depth": 0}}
    model = build("late_fusion", schema, modalities=special, **common)
    load_backbone(model, "text", text)
    load_backbone(model, "image", image)
    return model.eval()


@pytest.mark.parametrize("take", ["all", "mean", "last"])
def test_training_on_features_is_training_with_frozen_backbones(tiny_data, folder, take) -> None:
    model = network(tiny_data, folder, take=take)
    options = config(epochs=2, freeze=FROZEN)
    slow = fit(model, tiny_data, options)
    fast = fit_on_features(model, tiny_data, config(epochs=2))
    for name, tensor in slow.state_dict().items():
        torch.testing.assert_close(fast.state_dict()[name], tensor, atol=1e-4, rtol=1e-3, msg=name)


def test_the_rest_answers_as_the_whole_also_from_files_and_fits_back(tiny_data, folder, tmp_path: Path) -> None:
    model = network(tiny_data, folder)
    seen: list[tuple[str, int, int]] = []
    rest, features = precompute(
        model,
        tiny_data,
        ["text"],
        batch_size=10,
        folder=tmp_path,
        progress=lambda name, done, rows: seen.append((name, done, rows)),
    )
    assert {path.name for path in tmp_path.iterdir()} == {f"{name}.text.npy" for name in tiny_data.splits}
    assert ("train", 10, 48) in seen
    assert ("test", 16, 16) in seen
    assert rest.schema["text"].kind == "series"
    assert rest.schema["image"] == model.schema["image"]
    wanted = predict(model, tiny_data.validation)
    torch.testing.assert_close(
        torch.from_numpy(predict(rest, features.validation)), torch.from_numpy(wanted), atol=1e-5, rtol=1e-5
    )
    again = put_back(model, rest)
    assert all(t.equal(again.state_dict()[name]) for name, t in model.state_dict().items())


def test_other_features_are_other_data(tiny_data, folder) -> None:
    model = network(tiny_data, folder)
    first = precompute(model, tiny_data, ["text"])[1]
    with torch.no_grad():
        model.encoders["text"].stem.backbone.position.weight.mul_(2)
    second = precompute(model, tiny_data, ["text"])[1]
    assert first.fingerprint != second.fingerprint
    assert first.schema == second.schema


def test_what_has_no_backbone_or_another_shape_is_refused(tiny_data, folder) -> None:
    model = network(tiny_data, folder)
    with pytest.raises(TrainingError, match="the stem of 'table' is not pretrained"):
        precompute(model, tiny_data, ["table"])
    rest, features = precompute(model, tiny_data, ["text"])
    with pytest.raises(TrainingError, match="do not belong together"):
        put_back(rest, model)
    with pytest.raises(DataError, match=r"those of a series or codes, here of shape"):
        features.train.table.providing(rest.schema["text"], torch.zeros(3, 6, 16).numpy())
