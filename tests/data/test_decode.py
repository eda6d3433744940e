"""One value to one array, and what is refused."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import tracemalloc
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.conftest import clip, png
from triptych.data.decode import clip_header, decode, is_missing
from triptych.data.header import image_size, media_kind
from triptych.data.limits import Limits
from triptych.data.measured import build_tokenizer
from triptych.errors import DataError, DecodeError, LimitError, TriptychError
from triptych.schema import Modality

COLOUR = Modality(name="image", kind="image", height=8, width=8, channels=3)
GREY = Modality(name="image", kind="image", height=8, width=8, channels=1)
SOUND = Modality(name="audio", kind="audio", sample_rate=8000, channels=1)
SERIES = Modality(name="series", kind="series", channels=2)
TABLE = Modality(name="table", kind="table", fields=("a", "b"))
TONE = (0.3 * np.sin(np.arange(800) / 5)).astype(np.float32)


def pixels(height: int = 5, width: int = 4, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, channels), dtype=np.uint8)


def encoded(image: Image.Image, form: str, **options) -> bytes:
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


def png_claiming(width: int, height: int) -> bytes:
    """A few bytes that claim to be a huge image."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = b"IDAT" + zlib.compress(b"\0" * 100)
    chunks = b"".join(struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in (header, body))
    return b"\x89PNG\r\n\x1a\n" + chunks


# --- images


def test_png_is_exact_and_keeps_its_size():
    np.testing.assert_array_equal(decode(COLOUR, png(pixels())), pixels())


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("size", [(3, 70), (64, 64), (129, 5)])
def test_headers_agree_with_the_decoder(form, size):
    data = encoded(Image.fromarray(pixels(*size)), form)
    assert image_size(data) == size
    assert decode(COLOUR, data).shape == (*size, 3)


@pytest.mark.parametrize("options", [{"lossless": True}, {"exif": b"Exif\0\0II*\0\x08\0\0\0\0\0\0\0\0\0"}])
def test_webp_variants(options):
    assert image_size(encoded(Image.fromarray(pixels(31, 17)), "WEBP", **options)) == (31, 17)


def test_progressive_jpeg_with_comment():
    data = encoded(Image.fromarray(pixels(31, 17)), "JPEG", progressive=True, comment=b"x" * 500)
    assert image_size(data) == (31, 17)


@pytest.mark.parametrize("modality", [COLOUR, GREY])
@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "P", "1", "I;16"])
def test_every_mode_becomes_the_schema_channels(modality, mode):
    image = Image.new(mode, (4, 5)) if mode == "I;16" else Image.fromarray(pixels()).convert(mode)
    assert decode(modality, encoded(image, "PNG")).shape == (5, 4, modality.channels)


def test_sixteen_bit_grey_is_scaled_not_clipped():
    image = Image.fromarray(np.array([[0, 32896, 65535]], np.uint16))
    np.testing.assert_array_equal(decode(GREY, encoded(image, "PNG"))[0, :, 0], [0, 128, 255])


def test_transparent_pixels_show_white():
    image = Image.new("RGBA", (2, 2), (10, 20, 30, 0))
    assert (decode(COLOUR, encoded(image, "PNG")) == 255).all()


def test_a_turned_photo_is_turned_back():
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(Image.fromarray(pixels(4, 9)), "JPEG", exif=exif)
    assert decode(COLOUR, data).shape == (9, 4, 3)


def test_bytes_path_and_struct_agree(tmp_path):
    file = tmp_path / "a.png"
    file.write_bytes(png(pixels()))
    for value in (file, str(file), {"bytes": None, "path": str(file)}, {"bytes": file.read_bytes(), "path": "gone"}):
        np.testing.assert_array_equal(decode(COLOUR, value), pixels())


def test_pixels_in_memory():
    np.testing.assert_array_equal(decode(COLOUR, pixels()), pixels())
    assert decode(COLOUR, pixels()[..., 0]).shape == (5, 4, 3)
    assert decode(GREY, pixels()).shape == (5, 4, 1)
    with pytest.raises(DecodeError, match="uint8 pixels, got float64"):
        decode(COLOUR, pixels() / 255)


@pytest.mark.parametrize("data", [png_claiming(60_000, 60_000), png_claiming(2_000_000_000, 1)], ids=("square", "wide"))
def test_a_bomb_is_refused_from_its_header(data):
    with pytest.raises(LimitError, match="max_pixels"):
        decode(COLOUR, data)


def test_a_bomb_takes_no_memory():
    bombs = [
        (COLOUR, png_claiming(60_000, 60_000)),
        (SOUND, flac_claiming(2_000_000_000)),
        (SOUND, wav_claiming(2**31)),
    ]
    decode(COLOUR, png(pixels())), decode(SOUND, clip(TONE))  # loads the libraries
    tracemalloc.start()
    for modality, data in bombs:
        with pytest.raises(DataError):
            decode(modality, data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000


def test_a_thread_like_image_is_refused():
    with pytest.raises(LimitError, match="max_aspect"):
        decode(COLOUR, png(pixels(1, 101)))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (png(pixels(64, 64))[:-2000], "PNG image is damaged"),
        (png(pixels())[:20], "cut off in its header"),
        (png_claiming(0, 5), "size of 0x5"),
        (png_claiming(50, 50), "PNG image is damaged"),
        (b"\xff\xd8\xff", "cut off in its header"),
        (b"\xff\xd8\xff\xd9", "no frame header"),
        (b"RIFF\0\0\0\0WEBPXXXX", "unknown WebP chunk"),
        (b"", "got an empty file"),
        (b"GIF89a" + b"\0" * 50, "expected a PNG, JPEG or WebP image"),
        (clip(TONE), "got FLAC sound"),
    ],
)
def test_damaged_images_say_what_is_wrong(data, message):
    with pytest.raises(DecodeError, match=message):
        decode(COLOUR, data)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_flipped_bytes_never_escape_the_error_tree(data):
    form = data.draw(st.sampled_from(["PNG", "JPEG", "WEBP", "WAV", "FLAC", "OGG"]))
    picture = form in {"PNG", "JPEG", "WEBP"}
    whole = bytearray(encoded(Image.fromarray(pixels(9, 9)), form) if picture else clip(TONE, form=form))
    for _ in range(data.draw(st.integers(1, 6))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(whole)))
    for damaged in (bytes(whole), bytes(whole[:cut])):
        try:
            array = decode(COLOUR if picture else SOUND, damaged)
        except TriptychError:
            continue
        assert array.ndim == (3 if picture else 1)


@settings(max_examples=100, deadline=None)
@given(
    st.binary(max_size=200), st.sampled_from([b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF0000WEBP", b"fLaC", b"OggS"])
)
def test_any_bytes_after_the_magic_are_refused_clearly(body, magic):
    with pytest.raises(DataError):
        decode(COLOUR if media_kind(magic) == "image" else SOUND, magic + body)


# --- sound


@pytest.mark.parametrize(("form", "tolerance"), [("WAV", 1e-4), ("FLAC", 1e-4), ("OGG", 0.2)])
def test_clips_decode_to_mono_float(form, tolerance):
    samples = decode(SOUND, clip(TONE, form=form))
    assert samples.dtype == np.float32
    np.testing.assert_allclose(samples, TONE, atol=tolerance)


def test_stereo_is_averaged():
    stereo = np.stack([TONE, np.zeros_like(TONE)], axis=1)
    np.testing.assert_allclose(decode(SOUND, clip(stereo)), TONE / 2, atol=1e-4)


def test_long_clips_are_cropped():
    short = Modality(name="audio", kind="audio", sample_rate=8000, max_samples=100)
    np.testing.assert_array_equal(decode(short, clip(TONE)), decode(SOUND, clip(TONE))[:100])


def test_sound_in_memory():
    np.testing.assert_array_equal(decode(SOUND, {"array": TONE, "sampling_rate": 8000}), TONE)
    np.testing.assert_array_equal(decode(SOUND, TONE), TONE)
    with pytest.raises(DecodeError, match="16000 Hz, expected 8000 Hz"):
        decode(SOUND, {"array": TONE, "sampling_rate": 16000})


def long_wav(seconds: int) -> bytes:
    return clip(np.zeros(seconds * 100, np.float32), 100, "WAV", "PCM_U8")


def flac_claiming(frames: int) -> bytes:
    """A short FLAC clip whose header declares another length."""
    data = bytearray(clip(TONE))
    data[21] = data[21] & 0xF0 | frames >> 32
    data[22:26] = struct.pack(">I", frames & 0xFFFFFFFF)
    return bytes(data)


def wav_claiming(size: int) -> bytes:
    data = bytearray(clip(TONE, form="WAV"))
    at = data.index(b"data")
    data[at + 4 : at + 8] = struct.pack("<I", size)
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (clip(TONE, 16000), DecodeError, "16000 Hz, expected 8000 Hz; resample it"),
        (clip(np.stack([TONE] * 5, axis=1)), DecodeError, "5 channels, expected 1 or 2; mix it down"),
        (wav_claiming(2_000_000_000), DecodeError, "declares 2000000000 bytes of sound"),
        (flac_claiming(2_000_000_000), LimitError, "max_seconds"),
        (flac_claiming(1_000_000), DecodeError, "clip is damaged|declares 1000000 samples and holds"),
        (clip(np.zeros((0,), np.float32), form="WAV"), DecodeError, "declares 0 samples"),
        (clip(TONE)[:60], DecodeError, "FLAC clip is damaged|holds 0"),
        (clip(TONE, form="WAV")[:30], DecodeError, "no sound chunk"),
        (clip(np.array([0, np.nan], np.float32), form="WAV", subtype="FLOAT"), DecodeError, "NaN or infinite"),
        (clip(np.array([0, np.inf], np.float32), form="WAV", subtype="FLOAT"), DecodeError, "NaN or infinite"),
        (b"ID3\x04" + b"\0" * 99, DecodeError, "expected a WAV, FLAC or OGG clip"),
        (b"", DecodeError, "expected a WAV, FLAC or OGG clip"),
    ],
    ids=range(12),  # float clips hold the time at which they were made, and names must be alike in every process
)
def test_bad_clips_say_what_is_wrong(data, error, message):
    with pytest.raises(error, match=message):
        decode(SOUND, data)


def test_a_long_clip_is_refused_from_its_header():
    with pytest.raises(LimitError, match="length in seconds is 700, the limit max_seconds is 600"):
        decode(Modality(name="audio", kind="audio"), long_wav(700))
    assert clip_header(long_wav(700)) == (70_000, 100, 1)


# --- text, series, tables


def text_modality() -> Modality:
    document, size = build_tokenizer(["A red bus", "a blue bus!"])
    return Modality(name="text", kind="text", tokenizer=document, vocabulary=size, max_tokens=4)


def test_text_becomes_ids_in_lower_case():
    modality = text_modality()
    assert modality.vocabulary == 2 + len({"a", "red", "blue", "bus", "!"})
    ids = decode(modality, "RED bus")
    assert ids.dtype == np.int64
    np.testing.assert_array_equal(ids, decode(modality, " red  bus "))
    assert decode(modality, "zebra").tolist() == [1]
    assert len(decode(modality, "a a a a a a")) == 4
    assert 0 not in decode(modality, "a red blue bus !")


def test_text_errors():
    with pytest.raises(LimitError, match="number of characters"):
        decode(text_modality(), "a" * 200, Limits(max_text_chars=100))
    with pytest.raises(DataError, match="expected text, got int"):
        decode(text_modality(), 3)
    with pytest.raises(DataError, match="has no tokenizer"):
        decode(Modality(name="text", kind="text"), "hello")


@pytest.mark.parametrize(
    ("modality", "value", "expected"),
    [
        (SERIES, [[1, 2], [3, None]], [[1, 2], [3, np.nan]]),
        (SERIES, np.array([[1, 2]], np.int16), [[1, 2]]),
        (Modality(name="s", kind="series", channels=1), [1, 2], [[1], [2]]),
        (Modality(name="s", kind="series", channels=1, frames=1), [1, 2], [[1]]),
        (TABLE, [1, None], [1, np.nan]),
        (TABLE, {"b": 2}, [np.nan, 2]),
    ],
)
def test_numbers(modality, value, expected):
    array = decode(modality, value)
    assert array.dtype == np.float32
    np.testing.assert_array_equal(array, np.array(expected, np.float32))


@pytest.mark.parametrize(
    ("modality", "value", "message"),
    [
        (SERIES, [[1, 2, 3]], r"expected \(frames, 2\) numbers, got \(1, 3\)"),
        (SERIES, [[1, 2], [3]], "expected numbers, in rows of one length"),
        (SERIES, [[np.inf, 2]], "infinite"),
        (TABLE, [1, 2, 3], r"expected \(2,\) numbers, got \(3,\)"),
        (TABLE, ["x", 1], "expected numbers, in rows of one length"),
        (TABLE, {"c": 1}, r"unknown fields \['c'\]; known are \['a', 'b'\]"),
        (TABLE, [1e300, 1], "infinite"),
    ],
)
def test_bad_numbers(modality, value, message):
    with pytest.raises(DataError, match=message):
        decode(modality, value)


def test_too_many_numbers():
    with pytest.raises(LimitError, match="number of frames is 11"):
        decode(SERIES, np.zeros((11, 2)), Limits(max_frames=10))
    with pytest.raises(LimitError, match="number of values is 22"):
        decode(SERIES, np.zeros((11, 2)), Limits(max_values=10))


# --- files and limits


def test_files(tmp_path):
    with pytest.raises(DecodeError, match="does not exist; correct the path"):
        decode(COLOUR, tmp_path / "gone.png")
    with pytest.raises(DecodeError, match="nothing is fetched"):
        decode(COLOUR, "https://example.org/a.png")
    with pytest.raises(DecodeError, match="expected encoded bytes or a path, got int"):
        decode(COLOUR, 3)
    (tmp_path / "big.png").write_bytes(b"\0" * 100)
    for value in (tmp_path / "big.png", b"\0" * 100):
        with pytest.raises(LimitError, match="max_bytes"):
            decode(COLOUR, value, Limits(max_bytes=99))


def test_limits_must_be_positive():
    with pytest.raises(LimitError, match="max_pixels must be positive, got 0"):
        Limits(max_pixels=0)


@pytest.mark.parametrize("value", [None, "", "  ", float("nan"), [], [None], np.array([np.nan]), {"bytes": None}])
def test_missing_values(value):
    assert is_missing(value)
    with pytest.raises(DataError, match="the value is missing"):
        decode(TABLE, value)


@pytest.mark.parametrize("value", ["a", 0, 0.0, b"", [0], [None, 1], np.zeros(2, np.int16), {"bytes": b"x"}])
def test_values_that_are_there(value):
    assert not is_missing(value)


def test_decoding_loads_only_what_it_needs():
    code = (
        "import sys; from triptych.data import collate, decode, limits; from triptych.schema import Modality;"
        "decode.decode(Modality(name='t', kind='table'), [1.0]);"
        "heavy = {'torch', 'pyarrow', 'PIL', 'soundfile', 'tokenizers', 'pandas'} & set(sys.modules);"
        "sys.exit(f'loaded {heavy}' if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_reading_loads_no_torch():
    code = "import sys; import triptych.data.read, triptych.data.infer; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
