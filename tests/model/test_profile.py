"""The stem that tells a clip's manner from its spectrum over time."""

from __future__ import annotations

import math

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor

from triptych.model.build import build
from triptych.model.config import EncoderConfig, StemConfig
from triptych.model.stems.profile import ProfileStem, profile
from triptych.schema import Modality, Schema
from triptych.system.bundle import graphs

VOICE = Modality("voice", "audio", channels=1, sample_rate=4000, max_samples=4000)
SCHEMA = Schema("s", (VOICE,), "y", "classification", "accuracy", ("no", "yes"))
STEM = StemConfig(form="profile", window_s=0.025, hop_s=0.01, mels=16)


def clips() -> Tensor:
    """Noise that swells and fades; the second one ends early."""
    generator = torch.Generator().manual_seed(0)
    swell = torch.sin(torch.linspace(0.2, 9.0, 4000)).abs() + 0.05
    raw = 0.3 * torch.randn(3, 4000, generator=generator) * swell
    raw[1, 2500:] = math.nan
    return raw


def seen(raw: Tensor) -> Tensor:
    stem = ProfileStem(VOICE, EncoderConfig(8, STEM), "float32")
    return profile(*stem.spectrum(raw), stem.seconds)


def test_a_profile_by_hand() -> None:
    steady = torch.full((1, 4, 2), 1.0)
    real = torch.tensor([[True, True, True, False]])
    found = profile(steady, real, seconds=0.5)[0]
    mean, spread, change, rhythm = found[:2], found[2:4], found[4:6], found[6:]
    assert mean.tolist() == pytest.approx([0.0, 0.0], abs=1e-6)  # at the level in every band
    assert (spread / 2 + 2.2).tolist() == pytest.approx([0.01, 0.01], abs=1e-5)
    assert (change / 3 + 1).tolist() == pytest.approx([0.0, 0.0], abs=1e-6)
    share = 1 / (1 + math.exp(-10.0))  # of a frame as loud as the loudest
    assert rhythm.tolist() == pytest.approx([1.5 * share - 1.5, 0.01 - 2.0, -2.0, 3.0, -2.0, 1.5 - 3.5], abs=1e-4)


@torch.no_grad()
def test_loudness_changes_the_level_alone() -> None:
    plain, louder = seen(clips()), seen(3.0 * clips())
    changed = (plain - louder).abs().amax(dim=0)
    assert changed[-3].item() == pytest.approx(math.log(9.0) / 2, abs=1e-3)
    assert changed[[*range(len(changed) - 3), -2, -1]].max() < 1e-3


@torch.no_grad()
def test_more_silence_around_a_clip_changes_its_length_alone() -> None:
    quiet = 1e-3 * torch.randn(1, 1600, generator=torch.Generator().manual_seed(1))
    raw = clips()[:1, :2400]
    short = torch.cat([quiet[:, :200], raw, quiet[:, :200]], dim=1)
    long = torch.cat([quiet[:, :600], raw, quiet[:, :600]], dim=1)
    changed = (seen(short) - seen(long)).abs()[0]
    assert changed[-1].item() == pytest.approx(0.2)
    assert changed[:-1].max() < 0.05


@torch.no_grad()
def test_it_exports_as_it_computes() -> None:
    sizes = {"dim": 8, "depth": 0, "modalities": {"voice": {"form": "profile", "mels": 16}}}
    model, raw = build("late_fusion", SCHEMA, **sizes).eval(), clips()
    tokens = model.encode("voice", raw)
    assert tokens.x.shape == (3, 1, 8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    graph = graphs._encode_graph(graphs.frozen(model), "voice")
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    x, _ = session.run(None, {"voice": raw.numpy()})
    assert np.allclose(x, tokens.x, atol=1e-4)
