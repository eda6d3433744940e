"""Networks on disk: what is written is read back, and damage is reported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.model import tiny
from triptych.algorithm import Int8, KeepTokens, PruneWidth, compress
from triptych.errors import ModelError
from triptych.model import ModelConfig, load_model, save_model

BATCH = tiny.batch(3)


@pytest.mark.parametrize("name", tiny.NETWORKS)
@torch.no_grad()
def test_a_network_survives_the_disk(name: str, tmp_path: Path) -> None:
    model = tiny.network(name, exits=True)
    loaded = load_model(save_model(model, tmp_path / "model"))
    assert loaded.config == model.config
    assert loaded.schema == model.schema
    assert not loaded.training
    assert torch.equal(loaded(BATCH), model(BATCH))


@torch.no_grad()
def test_a_compressed_network_survives_the_disk(tmp_path: Path) -> None:
    model = compress(tiny.network(), [PruneWidth(), KeepTokens(), Int8()], [BATCH])
    loaded = load_model(save_model(model, tmp_path))
    assert loaded.config == model.config
    assert torch.equal(loaded(BATCH), model(BATCH))


def test_the_config_is_plain_json() -> None:
    config = tiny.network("bottleneck_fusion").config
    assert ModelConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def truncate(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-7])


def edit(folder: Path, change: Any) -> None:
    record = json.loads((folder / "model.json").read_text())
    change(record)
    (folder / "model.json").write_text(json.dumps(record))


@pytest.mark.parametrize(
    "damage",
    [
        truncate,
        lambda folder: (folder / "model.safetensors").unlink(),
        lambda folder: (folder / "model.json").unlink(),
        lambda folder: (folder / "model.json").write_text("{"),
        lambda folder: (folder / "model.json").write_text("[]"),
        lambda folder: (folder / "model.json").write_bytes(b"\xff\xfe"),
        lambda folder: edit(folder, lambda r: r.pop("config")),
        lambda folder: edit(folder, lambda r: r.pop("schema")),
        lambda folder: edit(folder, lambda r: r["config"].update(colour=1)),
        lambda folder: edit(folder, lambda r: r["config"].update(head_hidden=24)),
        lambda folder: edit(folder, lambda r: r["config"].update(encoders=[])),
        lambda folder: edit(folder, lambda r: r["config"].update(precision="int7")),
        lambda folder: edit(folder, lambda r: r["config"].update(dropout=5)),
        lambda folder: edit(folder, lambda r: r["config"].update(head_hidden=10**15)),
        lambda folder: edit(folder, lambda r: r["config"]["encoders"]["picture"]["stem"].update(window_s=1e9)),
        lambda folder: edit(folder, lambda r: r["config"]["fusion"].update(name="none")),
        lambda folder: edit(folder, lambda r: r["config"]["encoders"]["picture"].update(blocks=3)),
        lambda folder: edit(folder, lambda r: r["config"]["encoders"]["picture"]["blocks"][0].update(mixer="x")),
        lambda folder: edit(folder, lambda r: r["config"]["encoders"]["picture"].update(dim="wide")),
        lambda folder: edit(folder, lambda r: r["config"]["encoders"]["picture"].update(dim=-4)),
    ],
)
def test_damage_is_reported_with_the_folder(damage: Any, tmp_path: Path) -> None:
    save_model(tiny.network("late_fusion", "picture"), tmp_path)
    damage(tmp_path)
    with pytest.raises(ModelError):
        load_model(tmp_path)
