"""Presets: every one builds at its own sizes for its kind, runs, and exports at small ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from tests.model import tiny
from triptych.errors import ModelError
from triptych.model import PRESETS, build
from triptych.system.bundle import graphs

ON = {
    **dict.fromkeys(("vit_tiny", "swin_like", "poolformer_like", "mlp_mixer_like", "mobilenet_like"), "picture"),
    **dict.fromkeys(("coatnet_like", "kan_like"), "picture"),
    "vivit_like": "clip",
    "pointpillars_like": "cloud",
    "ast_tiny": "sound",
    **dict.fromkeys(("mamba_like", "reformer_like", "linformer_like", "longformer_like"), "words"),
    **dict.fromkeys(("informer_like", "gru_like"), "motion"),
    "linear_transformer_like": "units",
    "vlmo_like": "words",
    "perceiver_io_like": "words",
}
NETWORK = {"vlmo_like": "unified", "perceiver_io_like": "perceiver"}
SMALL: dict[str, Any] = {"dim": 12, "heads": 2, "expansion": 2.0, "hidden": 8, "head_hidden": 8, "latents": 4}


def test_every_preset_is_tried() -> None:
    assert ON.keys() == PRESETS.keys()


@pytest.mark.parametrize("name", sorted(PRESETS))
@torch.no_grad()
def test_it_runs_at_its_own_sizes(name: str) -> None:
    model = build(NETWORK.get(name, "late_fusion"), tiny.schema(ON[name]), preset=name).eval()
    assert model(tiny.batch(2, ON[name])).isfinite().all()
    sizes = PRESETS[name]
    blocks = (
        model.config.shared.blocks
        if model.config.shared
        else model.config.fusion.blocks or (model.config.encoders[ON[name]].blocks)
    )
    mixers = (sizes.get("mixer", "attention"),) if isinstance(sizes.get("mixer", ""), str) else sizes["mixer"]
    assert {block.mixer for block in blocks} == set(mixers)
    assert {block.channel for block in blocks} == {sizes.get("channel", "mlp")}


@pytest.mark.parametrize("name", sorted(PRESETS))
@torch.no_grad()
def test_it_exports_as_it_computes(name: str) -> None:
    depth = 2 if isinstance(PRESETS[name].get("mixer"), tuple) else 1
    network = NETWORK.get(name, "late_fusion")
    sizes = {**SMALL, "patch": 4, "mels": 8, "window_s": 0.04, "hop_s": 0.02, "fusion_depth": 1}
    torch.manual_seed(0)
    model = build(network, tiny.schema(ON[name]), preset=name, depth=depth, **sizes).eval()
    batch = tiny.batch(1, ON[name])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = onnxruntime.InferenceSession(graphs.export_fused(model), options, providers=["CPUExecutionProvider"])
    (output,) = session.run(None, {ON[name]: batch.inputs[ON[name]].numpy()})
    assert np.allclose(output, model(batch), atol=1e-4)


def test_what_is_given_beside_a_preset_stands() -> None:
    model = build("late_fusion", tiny.schema("picture"), preset="vit_tiny", depth=1)
    encoder = model.config.encoders["picture"]
    assert (encoder.dim, len(encoder.blocks), encoder.blocks[0].heads, encoder.stem.patch) == (192, 1, 3, 16)


def test_modalities_take_presets_of_their_own() -> None:
    special = {"image": {"preset": "swin_like", "depth": 1}, "text": {"preset": "gru_like"}}
    model = build("late_fusion", tiny.schema("picture", "words", "facts"), dim=32, modalities=special)
    encoders = model.config.encoders
    assert [block.mixer for block in encoders["picture"].blocks] == ["window"]
    assert [block.mixer for block in encoders["words"].blocks] == ["recurrent"] * 2
    assert (encoders["picture"].dim, encoders["words"].dim, encoders["facts"].dim) == (96, 32, 32)


def test_an_unknown_preset_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ModelError, match=r"unknown preset 'vit_giant'; known are \['ast_tiny', "):
        build("late_fusion", tiny.schema("picture"), preset="vit_giant")
