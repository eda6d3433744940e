"""Adapters in the training loop: what rests stays bit for bit, runs go on after a stop, and bundles hold the rest."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from triptych.data.dataset import Dataset
from triptych.data.loader import batch_of
from triptych.model import AdapterConfig, Multimodal, adapt, load_model, merge, save_model, trainable_parameters
from triptych.model.adapters import ADAPTERS
from triptych.system.bundle.export import export
from triptych.system.bundle.graphs import export_fused
from triptych.system.runtime.bundle import Bundle
from triptych.train import fit, fit_with_history

from .small import config, network, same
from .test_resume import StoppedError, stop_at

TRAINED = sorted(set(ADAPTERS) - {"cache_model"})


def adapted(data: Dataset, name: str, **sizes: object) -> Multimodal:
    return adapt(network(data, **sizes), AdapterConfig(name, rank=4, prompts=2, also=("head",)))


@pytest.mark.parametrize("name", TRAINED)
def test_training_lowers_the_loss_and_leaves_the_rest_alone(tiny_data: Dataset, name: str) -> None:
    model = adapted(tiny_data, name)
    fitted = fit_with_history(model, tiny_data, config(epochs=4, lr=2e-2, average=0.5, weight_decay=0.1))
    losses = [record["loss"] for record in fitted.history]
    assert losses[-1] < losses[0]
    trained, after = trainable_parameters(model), fitted.model.state_dict()
    assert trainable_parameters(fitted.model).keys() == trained.keys()
    for key, tensor in model.state_dict().items():
        assert key in trained or after[key].equal(tensor), key
    changed = [key for key, tensor in trained.items() if not after[key].equal(tensor)]
    assert any("head" not in key for key in changed)


@pytest.mark.parametrize("name", ["dora", "ladder"])
def test_a_resumed_run_ends_as_the_uninterrupted_one(tiny_data: Dataset, tmp_path: Path, name: str) -> None:
    options = config(epochs=2, checkpoint_every_s=0.0)
    model = adapted(tiny_data, name)
    whole = fit(model, tiny_data, options)
    with pytest.raises(StoppedError):
        fit(model, tiny_data, options, folder=tmp_path, progress=stop_at(2))
    assert same(whole, fit(model, tiny_data, options, folder=tmp_path, resume=True))


@pytest.mark.parametrize("name", ["lora", "bottleneck"])
def test_a_bundle_holds_what_was_trained(tiny_data: Dataset, tmp_path: Path, name: str) -> None:
    two = dataclasses.replace(tiny_data, schema=tiny_data.schema.only("image", "text"))
    model = fit(adapted(two, name, connector="resampler", queries=2), tiny_data, config(epochs=1, lr=2e-2))
    model = load_model(save_model(model, tmp_path / "model"))
    assert Bundle.load(export(model, tmp_path / "bundle", tiny_data), check_golden=True)
    if name == "lora":
        plain = merge(model)
        batch = batch_of(tiny_data.validation, range(3)).only("image", "text")
        assert torch.allclose(plain(batch), model(batch), atol=1e-5)
        assert export_fused(model) == export_fused(plain)
