"""Stems, mixers and grids one by one."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.model import tiny
from triptych.errors import ModelError
from triptych.model import ModelConfig, Multimodal
from triptych.model.build import build
from triptych.model.config import BlockConfig, EncoderConfig, StemConfig
from triptych.model.dense import Dense, Embedding, dequantize, quantize
from triptych.model.encoder import DropTokens
from triptych.model.mixers import MIXERS
from triptych.model.stems.audio import AudioStem
from triptych.model.stems.image import ImageStem
from triptych.model.stems.log_mel import fourier_filters, hann, mel_bank
from triptych.model.stems.robust import RobustScale, softsign
from triptych.model.stems.series import SeriesStem
from triptych.model.stems.summary import SummaryStem, memories
from triptych.schema import Modality, Schema
from triptych.tokens import Tokens


@given(st.integers(16, 600), st.floats(1000, 48_000), st.integers(1, 80))
@settings(deadline=None, max_examples=60)
def test_mel_bands_are_full_positive_and_sum_to_one(window: int, rate: float, mels: int) -> None:
    bank = mel_bank(window, rate, mels)
    assert bank.shape == (window // 2 + 1, mels)
    assert bank.isfinite().all()
    assert (bank >= 0).all()
    assert torch.allclose(bank.sum(dim=0), torch.ones(mels), atol=1e-4)


def test_mel_bands_rise_in_frequency_and_widen() -> None:
    bank = mel_bank(512, 16_000, 40)
    peaks = bank.argmax(dim=0)
    assert (peaks.diff() >= 0).all()
    assert (bank[:, 39] > 0).sum() > (bank[:, 5] > 0).sum()


def test_the_convolution_equals_the_fourier_transform() -> None:
    wave = torch.randn(64)
    parts = (fourier_filters(64).squeeze(1) @ wave).reshape(2, 33)
    assert torch.allclose(parts.square().sum(dim=0), torch.fft.rfft(wave * hann(64)).abs().square(), atol=1e-4)


@torch.no_grad()
def test_a_tone_lights_up_its_band() -> None:
    modality = Modality("sound", "audio", channels=1, sample_rate=8000, max_samples=8000)
    stem = AudioStem(modality, EncoderConfig(8, StemConfig(mels=32)), "float32")
    centers = 700 * (10 ** (torch.linspace(math.log10(1 + 20 / 700), math.log10(1 + 4000 / 700), 34)) - 1)[1:-1]
    for band in (5, 15, 28):
        tone = torch.sin(2 * math.pi * centers[band] * torch.arange(stem.samples) / 8000).unsqueeze(0)
        mel, real = stem.log_mel(stem.power(tone))
        assert real.all()
        assert abs(int(mel[0].mean(dim=0).argmax()) - band) <= 1


@torch.no_grad()
def test_audio_tokens_are_real_while_the_clip_lasts() -> None:
    modality = Modality("sound", "audio", channels=1, sample_rate=1000, max_samples=1000)
    stem = AudioStem(modality, EncoderConfig(8, StemConfig(max_tokens=10)), "float32")
    assert stem.tokens == 10
    wave = torch.zeros(1, 1000)
    wave[:, 450:] = math.nan
    assert stem(wave).mask.tolist() == [[True] * 5 + [False] * 5]


@torch.no_grad()
def test_pictures_become_patches_in_reading_order() -> None:
    stem = ImageStem(
        Modality("p", "image", height=4, width=5, channels=1), EncoderConfig(4, StemConfig(patch=2)), "float32"
    )
    assert (stem.grid, stem.tokens) == ((2, 3), 6)
    stem.project.weight.copy_(torch.eye(4))
    stem.project.bias.zero_()
    stem.position.weight.zero_()
    picture = torch.arange(20, dtype=torch.uint8).reshape(1, 4, 5, 1)
    tokens = stem(picture).x[0] * 64 + 128
    assert tokens[0].tolist() == [0, 1, 5, 6]
    assert tokens[2].tolist() == [4, 128, 9, 128]
    assert tokens[5].tolist() == [14, 128, 19, 128]


@torch.no_grad()
def test_missing_samples_are_marked_and_empty_windows_masked() -> None:
    modality = Modality("m", "series", frames=4, channels=1, center=(0.0,), scale=(1.0,))
    stem = SeriesStem(modality, EncoderConfig(4, StemConfig(frames_per_token=2)), "float32")
    stem.project.weight.copy_(torch.eye(4))
    stem.position.weight.zero_()
    tokens = stem(torch.tensor([[[0.0], [math.nan], [math.nan], [math.nan]]]))
    assert tokens.x[0].tolist() == [[0, 0, 0, 1], [0, 1, 0, 1]]
    assert tokens.mask.tolist() == [[True, False]]


def test_robust_scaling_by_hand() -> None:
    scale = RobustScale(Modality("f", "table", fields=("a", "b"), center=(1.0, 0.0), scale=(2.0, 1.0)))
    x, missing = scale(torch.tensor([[3.0, math.nan]]))
    assert x.tolist() == [[pytest.approx(math.asinh(1.0)), 0.0]]
    assert missing.tolist() == [[False, True]]
    quick = RobustScale(Modality("f", "table", fields=("a", "b"), center=(1.0, 0.0), scale=(2.0, 1.0)), "softsign")
    x, missing = quick(torch.tensor([[9.0, math.nan], [-1e9, 4.0]]))
    assert x.tolist() == [[0.5, 0.0], [pytest.approx(-1.0), 0.5]]
    assert missing.tolist() == [[False, True], [False, False]]
    with pytest.raises(ModelError, match="squash must be one of"):
        StemConfig(squash="tanh")
    with pytest.raises(ModelError, match="load its data first"):
        RobustScale(Modality("f", "table", fields=("a",)))


@pytest.mark.parametrize("name", sorted(MIXERS))
@torch.no_grad()
def test_mixers_ignore_what_is_not_real(name: str) -> None:
    torch.manual_seed(0)
    mixer = MIXERS[name](8, BlockConfig(heads=2, head_dim=4, kernel=3), (5,), "float32")
    mask = torch.tensor([[True, True, True, False, False]])
    x = torch.randn(1, 5, 8)
    noisy = x.masked_fill(~mask.unsqueeze(-1), 100.0)
    one, other = mixer(Tokens(x, mask)), mixer(Tokens(noisy, mask))
    assert torch.allclose(one[:, :3], other[:, :3], atol=1e-5)
    assert mixer.received(Tokens(x, mask)).shape == (1, 5)
    assert mixer.keys(Tokens(x, mask)).shape[:2] == (1, 5)


@torch.no_grad()
def test_a_token_of_weight_two_counts_like_two_tokens() -> None:
    torch.manual_seed(0)
    mixer = MIXERS["attention"](8, BlockConfig(heads=2, head_dim=4), (), "float32")
    x = torch.randn(1, 3, 8)
    twice = mixer(Tokens(torch.cat([x, x[:, 2:]], dim=1)))[:, :3]
    heavy = mixer(Tokens(x, None, torch.tensor([[1.0, 1.0, 2.0]])))
    assert torch.allclose(twice, heavy, atol=1e-5)


@torch.no_grad()
def test_received_attention_adds_up_to_one() -> None:
    mixer = MIXERS["attention"](8, BlockConfig(heads=2, head_dim=4), (), "float32")
    share = mixer.received(Tokens(torch.randn(2, 5, 8), torch.tensor([[True] * 3 + [False] * 2, [True] * 5])))
    assert torch.allclose(share.sum(dim=1), torch.ones(2), atol=1e-5)
    assert (share[0, 3:] < 1e-6).all()


@torch.no_grad()
def test_late_fusion_knows_where_each_modality_lies() -> None:
    model = tiny.network("late_fusion", "words", "facts", modalities={"words": {"dim": 24}})
    streams = model.encode_all(tiny.batch(2, "words", "facts"))
    vector = model.fusion(streams)
    for name, tokens in streams.items():
        start = model.fusion.starts[name]
        assert torch.allclose(vector[:, start : start + tokens.x.shape[2]], tokens.mean(), atol=1e-6)
    assert not any(tiny.network(n, "facts").fusion.starts for n in tiny.NETWORKS if n != "late_fusion")


def test_quantizing_by_hand() -> None:
    x = torch.tensor([-1.0, -0.26, 0.0, 0.24, 0.26, 9.0])
    scale, zero = torch.tensor(0.5), torch.tensor(1, dtype=torch.uint8)
    assert quantize(x, scale, zero, -1).tolist() == [-0.5, -0.5, 0.0, 0.0, 0.5, 9.0]
    assert quantize(torch.tensor([500.0]), scale, zero, -1).tolist() == [127.0]
    columns = quantize(torch.tensor([[1.2, 1.2]]), torch.tensor([1.0, 0.5]), torch.zeros(2, dtype=torch.int8), 1)
    assert columns.tolist() == [[1.0, 1.0]]
    assert dequantize(
        torch.tensor([130], dtype=torch.uint8), scale, torch.tensor(128, dtype=torch.uint8), 0
    ).tolist() == [1.0]


def test_gradients_pass_straight_through_inside_the_grid_only() -> None:
    x = torch.tensor([0.3, 300.0], requires_grad=True)
    quantize(x, torch.tensor(1.0), torch.tensor(0, dtype=torch.uint8), -1).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [1.0, 0.0]


@torch.no_grad()
def test_integer_weights_lie_on_their_grid() -> None:
    layer = Dense(5, 3, precision="int8_weights")
    x = torch.eye(5)
    levels = (layer(x) - layer.bias).t() / layer.weight_scale().unsqueeze(1)
    assert torch.allclose(levels, levels.round(), atol=1e-3)
    assert levels.abs().max() <= 127.001
    assert (
        levels * layer.weight_scale().unsqueeze(1) - layer.weight
    ).abs().max() <= layer.weight_scale().max() / 2 + 1e-6


@torch.no_grad()
def test_integer_tables_have_a_step_size_per_column() -> None:
    table = Embedding(6, 2, precision="int8_weights")
    table.weight.copy_(torch.tensor([[1.27, 0.0]] * 5 + [[0.014, 12.7]]))
    assert table.rows(6)[5].tolist() == pytest.approx([0.01, 12.7])
    assert torch.equal(table(torch.tensor([[5, 0]]))[0], table.rows(6)[[5, 0]])
    with pytest.raises(ModelError, match="at least one row"):
        Embedding(0, 2)


def test_token_mixing_is_one_product_with_a_known_number_of_tokens() -> None:
    mixer = MIXERS["token_mixing"](2, BlockConfig(), (2,), "float32")
    with torch.no_grad():
        mixer.mix.weight.copy_(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
        mixed = mixer(Tokens(torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])))
    assert mixed.tolist() == [[[1.0, 2.0], [3.0, 4.0]]]
    with pytest.raises(ModelError, match="known number of tokens"):
        MIXERS["token_mixing"](2, BlockConfig(), (), "float32")


@torch.no_grad()
def test_a_stem_without_masks_counts_what_is_missing_as_zero() -> None:
    series = Modality("s", "series", frames=4, channels=1, center=(0.0,), scale=(1.0,))
    schema = Schema("x", (series,), "y", "classification", "accuracy", ("a", "b"))
    missing = torch.full((1, 4, 1), float("nan"))
    for mask, expected in ((True, [[False, False]]), (False, None)):
        model = build("late_fusion", schema, dim=8, depth=1, heads=2, frames_per_token=2, mask=mask).eval()
        tokens = model.encode("s", missing)
        assert (None if tokens.mask is None else tokens.mask.tolist()) == expected
        assert tokens.x.isfinite().all()


def test_tokens_are_left_out_in_training_only_and_padding_first() -> None:
    drop, x = DropTokens(), torch.arange(40.0).reshape(1, 40, 1).repeat(3, 1, 1)
    tokens = Tokens(x, torch.arange(40) < torch.tensor([[40], [30], [10]]))
    drop.share = 0.5
    fewer = drop.train()(tokens)
    assert fewer.x.shape == (3, 20, 1)
    assert fewer.real().sum(dim=1).tolist() == [20, 20, 10]
    assert (fewer.x[2, :10, 0] == torch.arange(10.0)).all()  # all that are real, in their order
    assert (fewer.x.diff(dim=1) > 0).all()
    assert drop.eval()(tokens) is tokens
    drop.share = 0.9
    assert drop.train()(tokens).x.shape[1] == drop.least
    drop.share = 0.0
    assert drop(tokens) is tokens


def test_only_mixers_that_read_any_tokens_but_words_may_lose_some() -> None:
    for mixer in MIXERS:
        encoders = tiny.network(mixer=mixer).encoders
        dropped = {name for name in encoders if isinstance(encoders[name].drop, DropTokens)}
        assert dropped == ({"picture", "sound", "motion", "facts"} if MIXERS[mixer].any_tokens else {"facts"})


@torch.no_grad()
def test_a_summary_holds_averages_gaps_and_extremes() -> None:
    series = Modality("m", "series", frames=4, channels=1, center=(0.0,), scale=(1.0,))
    stem = SummaryStem(series, EncoderConfig(4, StemConfig(frames_per_token=2, averages=1)), "float32")
    stem.project.weight.copy_(torch.eye(4))
    stem.position.weight.zero_()
    low, high = math.sinh(-1.0), math.sinh(3.0)
    tokens = stem(torch.tensor([[[low], [high], [math.nan], [math.nan]]]))
    assert tokens.x[0, 0].tolist() == pytest.approx([1.0, 0.0, 3.0, -1.0])  # average, share missing, most, least
    assert tokens.x[0, 1].tolist() == pytest.approx([0.0, 1.0, 0.0, 0.0])
    assert tokens.mask.tolist() == [[True, False]]
    assert torch.allclose(memories(3, 5).sum(dim=1), torch.ones(3))
    assert (memories(3, 5)[:, -1].diff() > 0).all()
    assert memories(2, 1).tolist() == [[1.0], [1.0]]


@torch.no_grad()
def test_stems_of_other_kinds_are_refused_and_forms_rebuild_from_their_config() -> None:
    model = tiny.network("late_fusion", "motion", "facts", modalities={"motion": {"form": "summary"}})
    assert isinstance(model.encoders["motion"].stem, SummaryStem)
    assert model(tiny.batch(3, "motion", "facts")).isfinite().all()
    again = Multimodal(ModelConfig.from_dict(model.config.to_dict()), model.schema)
    again.load_state_dict(model.state_dict())
    with pytest.raises(ModelError, match=r"no stem 'summary' for 'facts', which is table; known are .*'table'\]"):
        tiny.network("late_fusion", "facts", modalities={"facts": {"form": "summary"}})


def test_softsign_has_its_own_slope() -> None:
    x = torch.tensor([-3.0, -0.5, 0.5, 7.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(softsign, x)
    assert softsign(x).tolist() == pytest.approx(torch.nn.functional.softsign(x).tolist())


@torch.no_grad()
def test_a_single_summary_token_is_that_of_many() -> None:
    series = Modality("m", "series", frames=6, channels=2, center=(0.0, 1.0), scale=(1.0, 2.0))
    torch.manual_seed(0)
    one = SummaryStem(series, EncoderConfig(4, StemConfig(frames_per_token=6)), "float32")
    raw = torch.randn(3, 6, 2).masked_fill(torch.rand(3, 6, 2) < 0.3, math.nan)
    raw[1] = math.nan
    two = SummaryStem(
        dataclasses.replace(series, frames=12), EncoderConfig(4, StemConfig(frames_per_token=6)), "float32"
    )
    two.load_state_dict({**one.state_dict(), "position.weight": one.position.weight.repeat(2, 1)})
    tokens, twice = one(raw), two(torch.cat([raw, raw], dim=1))
    assert tokens.x.shape == (3, 1, 4)
    assert tokens.mask.tolist() == [[True], [False], [True]]
    assert torch.allclose(tokens.x.expand(-1, 2, -1), twice.x, atol=1e-6)
    assert twice.mask.equal(tokens.mask.expand(-1, 2))
