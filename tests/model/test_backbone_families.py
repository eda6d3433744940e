"""What every audio and convolutional backbone promises inside a network: training, freezing, export, a bundle."""

from __future__ import annotations

import dataclasses
import functools
import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor

from triptych.algorithm import Int8, Int8Weights, compress
from triptych.algorithm.rebuild import rebuild
from triptych.model import Multimodal, build, load_model, save_model
from triptych.model.config import BackboneConfig
from triptych.model.convolution import GridConv2d
from triptych.model.multimodal import example_batch
from triptych.schema import Modality, Schema
from triptych.system.bundle.graphs import export_graphs
from triptych.system.bundle.write import write_bundle
from triptych.system.runtime import Bundle
from triptych.system.runtime.session import start_session
from triptych.tokens import Batch
from triptych.train.freeze import freeze_

LAYERS: dict[str, Any] = {"width": 8, "depth": 1, "heads": 2, "hidden": 12}
FAMILIES: dict[str, dict[str, Any]] = {
    "efficientnet": {
        "height": 20,
        "width": 16,
        "stem": 4,
        "stages": [[3, 1, 1, 4, 1], [3, 2, 2, 6, 2]],
        "head": 8,
    },
    "speech_embedding": {"channels": [3, 4, 4, 4, 4], "width": 8},
    "wav2vec2": {"convolutions": [[4, 10, 5], [6, 8, 8], [6, 4, 4]], "reach": 4, "groups": 2, **LAYERS},
    "whisper": {"positions": 60, "context": 45, "mels": 8, **LAYERS},
}
SOUND = Modality("sound", "audio", channels=1, sample_rate=16_000, max_samples=14_200)
PICTURE = Modality("picture", "image", height=12, width=10, channels=3)
SOUNDS = sorted(FAMILIES.keys() - {"efficientnet"})


def network(family: str, *, seed: int = 0, **sizes: Any) -> Multimodal:
    modality = PICTURE if family == "efficientnet" else SOUND
    schema = Schema("one", (modality,), "y", "classification", "accuracy", classes=("a", "b", "c"))
    stem = {"form": "pretrained", "backbone": BackboneConfig(family, FAMILIES[family])}
    torch.manual_seed(seed)
    chosen = {"dim": 8, "depth": 1, "heads": 2, "hidden": 8, "head_hidden": 8, "dropout": 0.0, **sizes}
    model = build("late_fusion", schema, modalities={modality.name: stem}, **chosen)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return model.eval()


def raw_of(family: str, rows: int = 3) -> Tensor:
    """Pictures, or clips of which each is a quarter shorter than the one before."""
    generator = torch.Generator().manual_seed(1)
    if family == "efficientnet":
        return torch.randint(0, 256, (rows, 12, 10, 3), generator=generator, dtype=torch.uint8)
    time, count = torch.arange(SOUND.max_samples), SOUND.max_samples
    wave = torch.randn(rows, count, generator=generator) * 0.1 * (time / 2000).sin()
    return wave.masked_fill(time >= (torch.linspace(1, 1 - 0.25 * (rows - 1), rows) * count).unsqueeze(1), math.nan)


def batch_of(family: str, rows: int = 3) -> Batch:
    name = "picture" if family == "efficientnet" else "sound"
    return Batch({name: raw_of(family, rows)})


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_every_weight_learns_unless_the_backbone_is_frozen(family: str) -> None:
    model, name = network(family), "picture" if family == "efficientnet" else "sound"
    model.train()(batch_of(family)).square().sum().backward()
    still = {key for key, p in model.named_parameters() if p.grad is None or not p.grad.any()}
    assert not {key for key in still if "backbone" in key and "position" not in key and ".mix" not in key}
    model.zero_grad(set_to_none=True)
    fixed = freeze_(model, [f"encoders.{name}.stem.backbone"])
    assert len(fixed) == len(list(model.encoders[name].stem.backbone.parameters()))
    model(batch_of(family)).square().sum().backward()
    assert all(p.grad is None for p in fixed)
    assert model.encoders[name].stem.adapt.weight.grad.any()


@pytest.mark.parametrize("family", SOUNDS)
@torch.no_grad()
def test_a_clip_has_the_same_tokens_whatever_it_is_padded_to(family: str) -> None:
    model, raw = network(family), raw_of(family)
    together = model.encode("sound", raw)
    for row, clip in enumerate(raw):
        alone = model.encode("sound", clip[~clip.isnan()].unsqueeze(0))
        real = together.real()[row]
        assert torch.equal(alone.real()[0], real)
        assert 0 < real.sum() < len(real) or row == 0
        torch.testing.assert_close(alone.x[0, real], together.x[row, real], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", SOUNDS)
@torch.no_grad()
def test_an_empty_clip_has_no_real_token_and_stays_finite(family: str) -> None:
    tokens = network(family).encode("sound", torch.full((2, 40), math.nan))
    assert not tokens.real().any()
    assert tokens.x.isfinite().all()


@pytest.mark.parametrize("family", sorted(FAMILIES))
@torch.no_grad()
def test_the_graphs_answer_as_the_network_does(family: str) -> None:
    model, batch, graphs = network(family), batch_of(family), graphs_of(family)
    name = next(iter(batch.inputs))
    x, mask = session(graphs[f"{name}.encode"]).run(None, {name: batch.inputs[name].numpy()})
    tokens = model.encode(name, batch.inputs[name])
    real = tokens.real().numpy()
    assert (mask == real).all()
    assert np.allclose(x[real], tokens.x.numpy()[real], atol=1e-4)
    for row in range(3):
        feed = {key: value[row : row + 1].numpy() for key, value in batch.inputs.items()}
        (answer,) = session(graphs["fused"]).run(None, feed)
        assert np.allclose(answer[0], model(batch)[row].numpy(), atol=1e-4)


@functools.cache
def graphs_of(family: str) -> dict[str, bytes]:
    return export_graphs(network(family))


def session(graph: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("family", sorted(FAMILIES))
@torch.no_grad()
def test_the_runtime_answers_from_a_bundle(family: str, tmp_path: Path) -> None:
    model, batch = network(family), batch_of(family)
    rows = [{key: value[row : row + 1].numpy() for key, value in batch.inputs.items()} for row in range(3)]
    outputs = model(batch).numpy()
    write_bundle(
        tmp_path / "bundle",
        schema=model.schema,
        graphs=graphs_of(family),
        golden_inputs=rows,
        golden_outputs=list(outputs),
    )
    bundle = Bundle.load(tmp_path / "bundle")
    for row, wanted in zip(rows, outputs, strict=True):
        for engine in ("fused", "staged"):
            assert np.allclose(bundle.run(row, engine), wanted, atol=1e-4)


@pytest.mark.parametrize("family", sorted(FAMILIES))
@torch.no_grad()
def test_a_saved_network_is_the_same_again(family: str, tmp_path: Path) -> None:
    model, batch = network(family), batch_of(family)
    assert torch.equal(load_model(save_model(model, tmp_path))(batch), model(batch))
    assert sum(model.flops().values()) > 0
    assert example_batch(model.schema).inputs.keys() == batch.inputs.keys()


@pytest.mark.parametrize("family", sorted(FAMILIES))
@torch.no_grad()
def test_products_may_be_on_the_integer_grid(family: str) -> None:
    model, batch = network(family), batch_of(family)
    small = rebuild(model, dataclasses.replace(model.config, precision="int8_weights")).eval()
    near, exact = small(batch), model(batch)
    assert not torch.equal(near, exact)
    assert torch.allclose(near, exact, atol=0.1 * float(exact.abs().max()))


@pytest.mark.parametrize("family", ["efficientnet", "speech_embedding"])
@torch.no_grad()
def test_convolutions_are_stored_as_integers_and_answer_alike(family: str) -> None:
    model, batch = network(family), batch_of(family)
    name = next(iter(batch.inputs))
    small = compress(model, [Int8Weights()], [batch])
    kernels = {key: m for key, m in small.named_modules() if isinstance(m, GridConv2d)}
    assert kernels
    for kernel in kernels.values():
        steps = kernel.kernel() / kernel.weight_scale().view(-1, 1, 1, 1)
        assert torch.allclose(steps, steps.round(), atol=1e-3)
        assert int(steps.abs().max().round()) == 127
    graph = export_graphs(small)[f"{name}.encode"]
    stored = [t for t in onnx.load_model_from_string(graph).graph.initializer if len(t.dims) == 4]
    assert sum(t.data_type == onnx.TensorProto.INT8 for t in stored) == len(kernels)
    before, after = model.encode(name, batch.inputs[name]), small.encode(name, batch.inputs[name])
    started = start_session(graph, "int8_weights", threads=1)
    x, _ = started.run(None, {name: batch.inputs[name].numpy()})
    real = after.real()
    assert np.allclose(x[real.numpy()], after.x[real], atol=1e-4)
    assert torch.allclose(after.x[real], before.x[real], atol=0.1 * float(before.x[real].abs().max()))
    whole = compress(model, [Int8()], [batch])
    assert all(torch.equal(m.kernel(), m.weight) for m in whole.modules() if isinstance(m, GridConv2d))
