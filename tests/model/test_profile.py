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
from triptych.model.stems.log_mel import hann
from triptych.model.stems.profile import ProfileStem, echoes, loudness, pitch
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
    return ProfileStem(VOICE, EncoderConfig(8, STEM), "float32").profile(raw)


def test_loudness_by_hand() -> None:
    steady = torch.full((1, 4, 2), 1.0)
    real = torch.tensor([[True, True, True, False]])
    share = 1 / (1 + math.exp(-10.0))  # of a frame as loud as the loudest
    wanted = [1.5 * share - 1.5, 0.01 - 2.0, -2.0, 3.0, -2.0, 1.5 - 3.5]
    assert loudness(steady, real, seconds=0.5)[0].tolist() == pytest.approx(wanted, abs=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("hertz", [110.0, 220.0, 400.0])
def test_a_pitch_is_heard_through_its_harmonics(hertz: float) -> None:
    rate, window = 16_000, 640
    time = torch.arange(window) / rate
    wave = sum((2 * math.pi * hertz * k * time).sin() * (3.0 if k == 3 else 1.0) for k in range(1, 8))
    power = torch.fft.rfft(torch.as_tensor(wave) * hann(window)).abs().square()
    mean, spread, repeats = pitch(power.expand(1, 5, -1), torch.ones(1, 5), echoes(window, rate))[0].tolist()
    assert 80.0 * 2 ** (mean / 2 + 1.3) == pytest.approx(hertz, rel=0.05)
    assert spread / 6 + 0.4 == pytest.approx(0.01, abs=1e-3)
    noise = torch.fft.rfft(torch.randn(5, window, generator=torch.Generator().manual_seed(0)) * hann(window))
    heard = pitch(noise.abs().square().unsqueeze(0), torch.ones(1, 5), echoes(window, rate))
    assert heard[0, 2].item() < repeats


@torch.no_grad()
def test_loudness_changes_the_level_alone() -> None:
    plain, louder = seen(clips()), seen(3.0 * clips())
    changed = (plain - louder).abs().amax(dim=0)
    assert changed[-6].item() == pytest.approx(math.log(9.0) / 2, abs=1e-3)
    assert changed[[*range(len(changed) - 6), -5, -4, -3, -2, -1]].max() < 1e-3


@torch.no_grad()
def test_more_silence_around_a_clip_changes_its_length_alone() -> None:
    quiet = 1e-3 * torch.randn(1, 1600, generator=torch.Generator().manual_seed(1))
    raw = clips()[:1, :2400]
    short = torch.cat([quiet[:, :200], raw, quiet[:, :200]], dim=1)
    long = torch.cat([quiet[:, :600], raw, quiet[:, :600]], dim=1)
    changed = (seen(short) - seen(long)).abs()[0]
    assert changed[-4].item() == pytest.approx(0.2)
    assert changed[[*range(len(changed) - 4), -3, -2, -1]].max() < 0.05


@torch.no_grad()
def test_training_learns_the_usual_profile_and_what_is_far_from_it_is_cut_off() -> None:
    stem, raw = ProfileStem(VOICE, EncoderConfig(8, STEM), "float32"), clips()
    for _ in range(200):
        stem(raw)
    plain = stem.profile(raw)
    assert torch.allclose(stem.standardise.mean, plain.mean(dim=0), atol=1e-3)
    assert torch.allclose(stem.standardise.variance, plain.var(dim=0, correction=0), atol=1e-3)
    stem.eval()
    assert torch.allclose(stem(1e4 * raw).x, stem(1e6 * raw).x, atol=1e-4)
    assert torch.allclose(stem.standardise.mean, plain.mean(dim=0), atol=1e-3)


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
