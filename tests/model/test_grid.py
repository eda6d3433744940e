"""The grid: every stem with every mixer and every channel block, with tokens that are not real."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor

from tests.model import tiny
from triptych.errors import ModelError
from triptych.model import Multimodal
from triptych.model.channels import CHANNELS
from triptych.model.config import BlockConfig, EncoderConfig, StemConfig
from triptych.model.encoder import Encoder
from triptych.model.mixers import MIXERS
from triptych.model.stems import STEMS
from triptych.schema import Modality
from triptych.system.bundle import graphs
from triptych.tokens import Tokens

BY_KIND = {modality.kind: modality for modality in (*tiny.MODALITIES, *tiny.MORE)}
STEM = {name: tiny.SIZES[name] for name in ("patch", "cells", "cell_patch", "hop_s", "window_s", "mels", "max_tokens")}
OF_ARRAYS = sorted(name for name, stem in STEMS.items() if stem.kind in BY_KIND)
COVERING = (
    ("clip", "depthwise", "inverted_bottleneck"),
    ("cloud", "window", "mlp"),
    ("units", "state_space", "gated_mlp"),
    ("picture", "low_rank", "kan"),
)


def read_by(form: str) -> Modality:
    """A modality that the stem reads."""
    modality = BY_KIND[STEMS[form].kind]
    return (
        dataclasses.replace(modality, channels=3, center=(0.0,) * 3, scale=(1.0,) * 3) if form == "norms" else modality
    )


def raw_values(modality: Modality) -> Tensor:
    """Three rows; a series of three channels repeats its first."""
    raw = tiny.batch(3, modality.name).inputs[modality.name]
    return torch.cat([raw, raw[..., :1]], dim=-1) if modality.kind == "series" and modality.channels == 3 else raw


def encoder(form: str, mixer: str, channel: str) -> tuple[Modality, Encoder]:
    """A stem and one block, their every parameter random."""
    modality = read_by(form)
    block = BlockConfig(
        mixer=mixer, channel=channel, heads=2, head_dim=4, hidden=12, kernel=3, rank=3, state=2, chunk=4, knots=3
    )
    stem = StemConfig(form=form, hidden=6, frames_per_token=2, **STEM)
    torch.manual_seed(0)
    made = Encoder(modality, EncoderConfig(8, stem, (block,)), precision="float32", dropout=0.1)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return modality, made.eval()


@pytest.mark.parametrize("mixer", sorted(MIXERS))
@pytest.mark.parametrize("form", OF_ARRAYS)
@torch.no_grad()
def test_every_point_of_the_grid_ignores_tokens_that_are_not_real(form: str, mixer: str) -> None:
    if form == "table" and MIXERS[mixer].needs_count:  # a row is one token, for which no grid is set up
        with pytest.raises(ModelError, match="known number"):
            encoder(form, mixer, "mlp")
        return
    for channel in CHANNELS:
        modality, made = encoder(form, mixer, channel)
        raw = raw_values(modality)
        tokens = made.stem(raw)
        count = tokens.x.shape[1]
        assert made.stem.tokens == count
        real = tokens.real() & (torch.arange(count) < max(1, count - count // 3))
        one, other = (
            made.blocks(Tokens(tokens.x.masked_fill(~real.unsqueeze(-1), fill), real)).x[real] for fill in (0.0, 3.0)
        )
        assert one.isfinite().all(), channel
        assert torch.allclose(one, other, atol=1e-5), channel
        whole = made(raw)
        assert whole.x.shape == (3, count, 8)


def run(graph: bytes, feed: dict[str, Tensor]) -> list[np.ndarray[Any, Any]]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    found: list[np.ndarray[Any, Any]] = session.run(None, {name: tensor.numpy() for name, tensor in feed.items()})
    return found


@pytest.mark.parametrize(("name", "mixer", "channel"), COVERING)
@torch.no_grad()
def test_a_covering_part_of_it_exports_as_it_computes(name: str, mixer: str, channel: str) -> None:
    model: Multimodal = tiny.network("late_fusion", name, mixer=mixer, channel=channel, depth=1, kernel=3, state=4)
    raw = tiny.batch(3, name).inputs[name]
    x, weights = run(graphs._encode_graph(graphs.frozen(model), name), {name: raw})
    tokens = model.encode(name, raw)
    assert np.array_equal(weights > 0, tokens.real())
    assert np.allclose(x[tokens.real().numpy()], tokens.x[tokens.real()], atol=1e-4)


def test_garbage_beyond_a_clouds_end_and_a_codes_end_is_nowhere_to_be_seen() -> None:
    for name, gap in (("cloud", math.nan), ("units", 0)):
        raw = tiny.batch(3, name).inputs[name]
        longer = torch.cat([raw, torch.full_like(raw[:, :4], gap)], dim=1)
        model = tiny.network("late_fusion", name)
        if name == "cloud":
            assert torch.allclose(model.encode(name, longer).mean(), model.encode(name, raw).mean(), atol=1e-5)
        else:
            assert (model.encode(name, raw).real() == (raw != 0).any(dim=2)).all()
