"""Audio backbones answer, from the waveform on, what the networks answer that they were read from."""

from __future__ import annotations

import importlib.util
import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pyarrow.parquet as pq
import pytest
import soundfile
import torch
import transformers
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers.audio_utils import mel_filter_bank

from tests.model.pretrained import saved
from tests.model.test_backbones import tokens_of
from triptych.errors import ModelError
from triptych.model.backbones import BACKBONES
from triptych.model.backbones.speech_embedding import FRAMES, STEP, SpeechEmbedding
from triptych.model.backbones.waveform import filters, fitted, power, slaney_bank
from triptych.model.backbones.whisper import Whisper
from triptych.model.packaged import has_package, read_package
from triptych.model.pretrained import Pretrained, read_backbone
from triptych.schema import Modality

WHISPER = {
    "d_model": 16,
    "encoder_layers": 2,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 24,
    "decoder_layers": 1,
    "decoder_attention_heads": 2,
    "decoder_ffn_dim": 16,
    "max_source_positions": 50,
    "vocab_size": 30,
    "pad_token_id": 0,
    "decoder_start_token_id": 1,
}
WAV2VEC2: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "conv_dim": (8, 8, 12),
    "conv_kernel": (10, 3, 2),
    "conv_stride": (5, 4, 2),
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 4,
}
LARGE = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True, "num_conv_pos_embeddings": 7}


def sound(samples: int, rate: int = 16_000) -> Modality:
    return Modality("sound", "audio", channels=1, sample_rate=rate, max_samples=samples)


def waves(*lengths: int, longest: int = 0) -> Tensor:
    """Noise that swells and fades, NaN beyond each clip's end."""
    time = torch.arange(longest or max(lengths))
    noise = torch.randn(len(lengths), len(time), generator=torch.Generator().manual_seed(0))
    swell = 0.1 * noise * (time / 3000).sin() + 0.05 * (time * 0.2).sin()
    return swell.masked_fill(time >= torch.tensor(lengths).unsqueeze(1), math.nan)


def whisper_folder(folder: Path, *, whole: bool = True) -> transformers.WhisperModel:
    kind = transformers.WhisperModel if whole else transformers.WhisperForConditionalGeneration
    made = saved(kind(transformers.WhisperConfig(**WHISPER)), folder)
    return made if whole else made.model


@pytest.mark.parametrize("whole", [True, False])
@torch.no_grad()
def test_whisper_answers_the_same_from_the_waveform_on(whole: bool, tmp_path: Path) -> None:
    theirs, raw = whisper_folder(tmp_path, whole=whole), waves(16_000, 9000)
    tokens = tokens_of(read_backbone(tmp_path), sound(16_000), raw)
    extract = transformers.WhisperFeatureExtractor(chunk_length=1)
    heard = extract([row[~row.isnan()].numpy() for row in raw], sampling_rate=16_000, return_tensors="pt")
    wanted = theirs.encoder(heard.input_features).last_hidden_state
    torch.testing.assert_close(tokens.x, wanted, atol=1e-4, rtol=1e-4)
    assert tokens.mask is not None
    assert tokens.mask.sum(dim=1).tolist() == [50, 29]  # the last real one has its middle at sample 28 · 320 = 8960


@torch.no_grad()
def test_whisper_with_fewer_places_knows_the_first_ones(tmp_path: Path) -> None:
    whisper_folder(tmp_path)
    found = read_backbone(tmp_path)
    backbone = backbone_of(found, sound(8000), context=25)
    assert isinstance(backbone, Whisper)
    raw = waves(8000)
    tokens = backbone(raw)
    assert tokens.x.shape == (1, 25, 16)
    backbone.position.weight[25:] = 9.0
    assert torch.equal(backbone(raw).x, tokens.x)
    with pytest.raises(ModelError, match="context must be at most the 50 positions, got 51"):
        Whisper.read_sizes({**found.config.sizes, "context": 51})


def backbone_of(found: Pretrained, modality: Modality, **changes: Any) -> torch.nn.Module:
    family = BACKBONES[found.config.family]
    backbone = family(modality, family.read_sizes({**found.config.sizes, **changes}), "float32")
    backbone.load_state_dict(dict(found.tensors))
    return backbone.eval()


@pytest.mark.parametrize("kind", ["Wav2Vec2", "Hubert"])
@pytest.mark.parametrize("variant", [{}, LARGE, {"feat_proj_layer_norm": False}], ids=["base", "large", "bare"])
@torch.no_grad()
def test_wav2vec2_and_hubert_answer_for_a_padded_clip_what_it_has_alone(
    kind: str, variant: dict[str, Any], tmp_path: Path
) -> None:
    if kind == "Wav2Vec2" and "feat_proj_layer_norm" in variant:
        pytest.skip("wav2vec 2.0 always has this norm")
    config = getattr(transformers, f"{kind}Config")(**{**WAV2VEC2, **variant})
    theirs, raw = saved(getattr(transformers, f"{kind}Model")(config), tmp_path), waves(3000, 1777, longest=3000)
    tokens = tokens_of(read_backbone(tmp_path), sound(3000), raw)
    assert tokens.mask is not None
    extract = transformers.Wav2Vec2FeatureExtractor()
    for row, clip in enumerate(raw):
        heard = torch.tensor(extract(clip[~clip.isnan()].numpy(), sampling_rate=16_000).input_values[0])
        wanted = theirs(heard.unsqueeze(0)).last_hidden_state[0]
        assert tokens.mask[row].sum() == len(wanted)
        torch.testing.assert_close(tokens.x[row, : len(wanted)], wanted, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_older_folders_name_the_norm_of_weights_otherwise(tmp_path: Path) -> None:
    saved(transformers.HubertModel(transformers.HubertConfig(**WAV2VEC2)), tmp_path)
    (tmp_path / "preprocessor_config.json").write_text('{"do_normalize": false}')
    new = read_backbone(tmp_path)
    assert new.config.sizes["scaled"] is False
    old = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}
    tensors = load_file(tmp_path / "model.safetensors")
    renamed = {}
    for name, tensor in tensors.items():
        end = next((key for key in old if name.endswith(key)), "")
        renamed["hubert." + (name.removesuffix(end) + old[end] if end else name)] = tensor
    save_file(renamed, tmp_path / "model.safetensors")
    again = read_backbone(tmp_path)
    assert all(torch.equal(new.tensors[name], tensor) for name, tensor in again.tensors.items())


def test_variants_that_are_not_read_are_refused(tmp_path: Path) -> None:
    saved(transformers.Wav2Vec2Model(transformers.Wav2Vec2Config(**WAV2VEC2, add_adapter=True)), tmp_path)
    with pytest.raises(ModelError, match="'add_adapter' is set"):
        read_backbone(tmp_path)


def test_other_rates_are_refused(tmp_path: Path) -> None:
    whisper_folder(tmp_path)
    found = read_backbone(tmp_path)
    with pytest.raises(ModelError, match="has 8000 Hz; resample the clips to 16000 Hz"):
        backbone_of(found, sound(8000, rate=8000))
    with pytest.raises(ModelError, match="no image size"):
        read_backbone(tmp_path, image=(8, 8))


@pytest.mark.parametrize(("mels", "bins", "low", "high"), [(80, 400, 0.0, 8000.0), (32, 512, 60.0, 3800.0)])
def test_mel_bands_are_slaneys(mels: int, bins: int, low: float, high: float) -> None:
    wanted = mel_filter_bank(bins // 2 + 1, mels, low, high, 16_000, norm="slaney", mel_scale="slaney")
    assert np.allclose(slaney_bank(bins=bins, mels=mels, low=low, high=high).numpy(), wanted, atol=1e-7)


def test_the_convolution_equals_the_fourier_transform_of_a_shorter_window() -> None:
    wave = torch.randn(1, 64, generator=torch.Generator().manual_seed(0))
    wanted = power(wave, window=48, hop=8, bins=64)
    parts = torch.nn.functional.conv1d(wave.unsqueeze(1), filters(48, 64), stride=8)
    real, imaginary = parts.chunk(2, dim=1)
    torch.testing.assert_close((real**2 + imaginary**2).transpose(1, 2), wanted, atol=1e-4, rtol=1e-4)


def test_a_wave_is_cropped_or_filled_up() -> None:
    wave, real = fitted(torch.tensor([[1.0, 2.0, math.nan]]), 2)
    assert (wave.tolist(), real.tolist()) == ([[1.0, 2.0]], [[True, True]])
    wave, real = fitted(torch.tensor([[1.0, math.nan]]), 4)
    assert (wave.tolist(), real.tolist()) == ([[1.0, 0.0, 0.0, 0.0]], [[True, False, False, False]])


class Openwakeword:
    """The two ONNX files of the package, run as the package does: window by window."""

    def __init__(self) -> None:
        spec = importlib.util.find_spec("openwakeword")
        home = Path(next(iter(spec.submodule_search_locations or []))) if spec else Path()
        found = [home / "resources" / "models" / f"{name}.onnx" for name in ("melspectrogram", "embedding_model")]
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.mel, self.embed = (onnxruntime.InferenceSession(str(path), options) for path in found)

    def log_mel(self, clip: Tensor) -> NDArray[np.float32]:
        (decibels,) = self.mel.run(None, {"input": clip.unsqueeze(0).numpy() * 32768})
        return np.asarray(decibels.reshape(-1, 32) / 10 + 2)

    def tokens(self, log_mel: NDArray[np.float32]) -> NDArray[np.float32]:
        starts = range(0, len(log_mel) - FRAMES + 1, STEP)
        windows = np.stack([log_mel[start : start + FRAMES] for start in starts])[..., None]
        (found,) = self.embed.run(None, {"input_1": windows})
        return np.asarray(found.reshape(len(windows), -1))


@pytest.fixture
def speech() -> Pretrained:
    if not has_package("openwakeword"):
        pytest.skip("openwakeword is not installed: pip install --no-deps openwakeword==0.5.1")
    return read_package("openwakeword")


def spoken(seconds: float) -> Tensor:
    """A made vowel with a falling pitch, breath and pauses, on the grid of 16-bit samples: (samples,)."""
    time = torch.arange(int(seconds * 16_000)) / 16_000
    pitch = 2 * math.pi * (140 * time - 8 * time**2)
    voice = sum((k * pitch).sin() / k * math.exp(-((k * 140 - 700) ** 2) / 4e5) for k in range(1, 20))
    breath = torch.randn(len(time), generator=torch.Generator().manual_seed(3)) * 0.01
    open_mouth = (2 * math.pi * 1.5 * time).sin().clamp(min=0)
    return ((0.3 * voice * open_mouth + breath) * 32767).round().clamp(-32768, 32767) / 32768


@pytest.mark.parametrize("clip", [waves(30_000)[0], spoken(2.2)], ids=["noise", "voice"])
@torch.no_grad()
def test_speech_embeddings_are_those_of_the_onnx_files(clip: Tensor, speech: Pretrained) -> None:
    theirs, longest = Openwakeword(), 40_000
    backbone = backbone_of(speech, sound(longest))
    assert isinstance(backbone, SpeechEmbedding)
    raw = torch.full((2, longest), math.nan)
    raw[0, : len(clip)] = clip
    raw[1] = torch.randn(longest, generator=torch.Generator().manual_seed(4)) * 0.5
    log_mel, real = backbone.log_mel(raw)
    wanted = theirs.log_mel(clip)
    assert real[0].sum() == len(wanted)
    assert np.allclose(log_mel[0, : len(wanted)].numpy(), wanted, atol=1e-5)
    tokens, wanted = backbone(raw), theirs.tokens(wanted)
    assert tokens.mask.sum(dim=1).tolist() == [len(wanted), backbone.grid[0]]
    assert np.allclose(tokens.x[0, : len(wanted)].numpy(), wanted, atol=1e-5 * np.abs(wanted).max())


@pytest.mark.realdata
@torch.no_grad()
def test_speech_embeddings_of_a_recorded_voice(speech: Pretrained, real_data: Path) -> None:
    rows = pq.ParquetFile(real_data / "ravdess" / "validation.parquet").iter_batches(1, columns=["audio"])
    samples, _ = soundfile.read(io.BytesIO(next(rows)["audio"][0].as_py()["bytes"]), dtype="float32")
    clip = torch.from_numpy(samples)
    theirs = Openwakeword()
    tokens = backbone_of(speech, sound(len(clip)))(clip.unsqueeze(0))
    wanted = theirs.tokens(theirs.log_mel(clip))
    assert np.allclose(tokens.x[0].numpy(), wanted, atol=1e-5 * np.abs(wanted).max())


@torch.no_grad()
def test_short_clips_have_one_speech_token_and_empty_ones_none() -> None:
    torch.manual_seed(0)
    sizes = SpeechEmbedding.read_sizes({"channels": [2, 2, 2, 2, 2], "width": 3})
    backbone = SpeechEmbedding(sound(1000), sizes, "float32").eval()
    tokens = backbone(torch.cat([waves(1000), torch.full((1, 1000), math.nan)]))
    assert tokens.x.shape == (2, 1, 3)
    assert tokens.mask.tolist() == [[True], [False]]
    assert tokens.x.isfinite().all()
    with pytest.raises(ModelError, match="channels must be 5 numbers"):
        SpeechEmbedding.read_sizes({"channels": [2, 2]})
