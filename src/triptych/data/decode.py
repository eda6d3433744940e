"""One raw value to one array, with caps read from headers before decoding. Torch-free.

The training data and the deployed runtime both decode here, so they cannot disagree. The media libraries are
imported where they are used: a runtime that sees no sound never loads the sound library.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from triptych.data.arrays import READ, eight_bits, is_npy, plain, read_npy, recolour
from triptych.data.header import audio_format, check_wav_length, image_format, image_size
from triptych.data.limits import Limits
from triptych.data.resize import resize
from triptych.errors import DataError, DecodeError
from triptych.schema import Modality

if TYPE_CHECKING:
    from PIL import Image
    from tokenizers import Tokenizer

__all__ = ["clip_header", "decode", "is_missing", "media_bytes", "resize", "tokenizer_of"]

Array = NDArray[Any]
DEFAULT_LIMITS = Limits()


def decode(modality: Modality, value: object, limits: Limits = DEFAULT_LIMITS) -> Array:
    """Decode one value of a modality, without batch axis.

    value by kind, and what it becomes:
      image:  encoded bytes, a path, {"bytes", "path"} or (height, width[, channels]) uint8
              → (height, width, channels) uint8 at its own size
      audio:  encoded bytes, a path, {"bytes", "path"}, {"array", "sampling_rate"} or (samples[, channels])
              → (samples,) float32, at most `max_samples`
      text:   str → (tokens,) int64, at most `max_tokens`
      series: (frames[, channels]) numbers → (frames, channels) float32, NaN where missing
      table:  (fields,) numbers, or a number by field name → (fields,) float32, NaN where missing
      video:  (frames, height, width[, channels]) pixels → (frames, height, width, channels) uint8 at its own size
      points: (points, features) numbers → (points, features) float32, NaN where missing
      codes:  (tokens[, levels]) whole numbers, -1 where there is none → (tokens, levels) int64, 1 + code
    The last three come as arrays, nested lists or NumPy files; so do images of more than 8 bits, such as depth maps,
    where the schema holds their measured scale: they become grey levels (see `arrays.eight_bits`).
    Raises DecodeError, LimitError or DataError; the message names neither row nor column.
    """
    if is_missing(value):
        raise DataError("the value is missing; leave the modality out instead")
    match modality.kind:
        case "image":
            return _image(modality, value, limits)
        case "audio":
            return _audio(modality, value, limits)
        case "text":
            return _text(modality, value, limits)
        case "series":
            return _series(modality, value, limits)
        case "table":
            return _table(modality, value, limits)
        case "video" | "points" | "codes":
            return READ[modality.kind](modality, array_of(value, limits), limits)


def array_of(value: object, limits: Limits = DEFAULT_LIMITS) -> Array:
    """Numbers from an array, nested lists, or a NumPy file as bytes, a path or {"bytes", "path"}."""
    inline = isinstance(value, np.ndarray | list | tuple)
    return plain(value, limits) if inline else read_npy(media_bytes(value, limits), limits)


def is_missing(value: object) -> bool:
    """True for None, NaN, blank text, media without bytes or path, and arrays without a single number."""
    if value is None:
        return True
    if isinstance(value, str):
        return not value.strip()
    if isinstance(value, float):
        return math.isnan(value)
    if isinstance(value, Mapping):
        return all(is_missing(item) for item in value.values())
    if isinstance(value, np.ndarray):
        return value.size == 0 or bool(value.dtype.kind == "f" and np.isnan(value).all())
    return isinstance(value, list | tuple) and all(is_missing(item) for item in value)


def media_bytes(value: object, limits: Limits = DEFAULT_LIMITS) -> bytes:
    """Encoded bytes of an image or a clip, from bytes, a path or {"bytes", "path"}."""
    if isinstance(value, Mapping):
        value = value.get("path") if value.get("bytes") is None else value["bytes"]
    if isinstance(value, bytes | bytearray | memoryview):
        limits.check("max_bytes", len(value), "the number of encoded bytes")
        return bytes(value)
    if isinstance(value, str | Path):
        return _file_bytes(value, limits)
    raise DecodeError(f"expected encoded bytes or a path, got {type(value).__name__}; see decode() for the forms")


def clip_header(data: bytes) -> tuple[int, int, int]:
    """Declared (frames, sample rate in Hz, channels) of a clip.  Raises DecodeError."""
    with _open_clip(data) as clip:
        return clip.frames, clip.samplerate, clip.channels


@lru_cache(maxsize=16)
def tokenizer_of(document: str) -> Tokenizer:
    """Read a `tokenizers` JSON document; the same document gives the same object."""
    from tokenizers import Tokenizer

    return Tokenizer.from_str(document)


def _file_bytes(path: str | Path, limits: Limits) -> bytes:
    if "://" in str(path):
        raise DecodeError(f"{str(path)!r} is an address, and nothing is fetched; download it and give the file")
    file = Path(path)
    if not file.is_file():
        raise DecodeError(f"the file {str(path)!r} does not exist; correct the path")
    limits.check("max_bytes", file.stat().st_size, "the number of encoded bytes")
    return file.read_bytes()


def _image(modality: Modality, value: object, limits: Limits) -> Array:
    if modality.center:
        return eight_bits(modality, deep_map(value, limits))
    if isinstance(value, np.ndarray):
        return recolour(_image_array(value, limits), modality.channels)
    data = media_bytes(value, limits)
    height, width = image_size(data)
    _check_pixels(height, width, limits)
    from PIL import Image, ImageOps

    try:
        with Image.open(io.BytesIO(data), formats=(image_format(data),)) as image:
            _check_same_size(image.size, (width, height))
            return _pixels(ImageOps.exif_transpose(image), modality.channels)
    except DecodeError:
        raise
    except Exception as error:  # a foreign decoder may raise anything on damaged bytes
        raise DecodeError(f"the {image_format(data)} image is damaged ({error}); replace the file") from error


def deep_map(value: object, limits: Limits = DEFAULT_LIMITS) -> Array:
    """(height, width[, channels]) values of an image at their own depth: an array, lists, a NumPy file or a PNG."""
    if isinstance(value, np.ndarray | list | tuple):
        return plain(value, limits)
    data = media_bytes(value, limits)
    if is_npy(data):
        return read_npy(data, limits)
    height, width = image_size(data)
    _check_pixels(height, width, limits)
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data), formats=(image_format(data),)) as image:
            _check_same_size(image.size, (width, height))
            return np.asarray(image, np.uint16) if image.mode.startswith("I") else np.asarray(image)
    except DecodeError:
        raise
    except Exception as error:  # a foreign decoder may raise anything on damaged bytes
        raise DecodeError(f"the {image_format(data)} image is damaged ({error}); replace the file") from error


def _check_same_size(found: tuple[int, int], declared: tuple[int, int]) -> None:
    if found != declared:
        raise DecodeError(f"the image declares both {declared} and {found} pixels; replace the file")


def _check_pixels(height: int, width: int, limits: Limits) -> None:
    limits.check("max_pixels", height * width, f"the number of pixels ({width}x{height})")
    limits.check("max_aspect", max(height, width) / max(1, min(height, width)), f"the aspect ratio ({width}x{height})")


def _pixels(image: Image.Image, channels: int) -> Array:
    from PIL import Image

    if image.mode.startswith("I"):  # 16-bit grey, which Pillow would clip instead of scale
        grey = (np.asarray(image, np.float32) / 257).round().clip(0, 255).astype(np.uint8)
        return recolour(grey[..., None], channels)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    pixels = np.array(image.convert("L" if channels == 1 else "RGB"))
    return pixels[..., None] if channels == 1 else pixels


def _image_array(value: Array, limits: Limits) -> Array:
    image = value[..., None] if value.ndim == 2 else value
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] not in {1, 3}:
        given = f"{value.dtype} {value.shape}"
        raise DecodeError(f"expected (height, width, 1 or 3) uint8 pixels, got {given}; convert the array")
    _check_pixels(image.shape[0], image.shape[1], limits)
    return image


def _audio(modality: Modality, value: object, limits: Limits) -> Array:
    if isinstance(value, Mapping) and value.get("array") is not None:
        _check_rate(modality, int(value.get("sampling_rate") or modality.sample_rate))
        value = value["array"]
    inline = isinstance(value, np.ndarray | list | tuple)
    samples = _numbers(value, limits) if inline else _clip(modality, media_bytes(value, limits), limits)
    if samples.ndim == 1:
        samples = samples[:, None]
    if samples.ndim != 2:
        raise DecodeError(f"expected (samples,) or (samples, channels), got {samples.shape}; reshape the array")
    _check_channels(samples.shape[1])
    if not np.isfinite(samples).all():
        raise DecodeError("the clip holds NaN or infinite samples; clean it or drop the row")
    mono = samples[:, 0] if samples.shape[1] == 1 else samples.mean(axis=1)
    return np.ascontiguousarray(mono[: modality.max_samples or None], np.float32)


def _clip(modality: Modality, data: bytes, limits: Limits) -> Array:
    with _open_clip(data) as clip:
        _check_rate(modality, clip.samplerate)
        _check_channels(clip.channels)
        limits.check("max_seconds", clip.frames / clip.samplerate, "the length in seconds")
        limits.check("max_samples", clip.frames * clip.channels, "the number of samples")
        frames = min(clip.frames, modality.max_samples or clip.frames)
        try:
            samples: Array = clip.read(frames, dtype="float32", always_2d=True)
        except Exception as error:  # a foreign decoder may raise anything on damaged bytes
            raise DecodeError(f"the clip is damaged ({error}); replace the file") from error
    if not len(samples) or len(samples) < frames:
        raise DecodeError(f"the clip declares {frames} samples and holds {len(samples)}; replace the file")
    return samples


def _open_clip(data: bytes) -> Any:
    if not audio_format(data):
        start = bytes(data[:8])
        raise DecodeError(f"expected a WAV, FLAC or OGG clip, got bytes that start with {start!r}; convert it")
    if audio_format(data) == "WAV":
        check_wav_length(data)
    import soundfile

    try:
        return soundfile.SoundFile(io.BytesIO(data))
    except Exception as error:  # a foreign decoder may raise anything on damaged bytes
        raise DecodeError(f"the {audio_format(data)} clip is damaged ({error}); replace the file") from error


def _check_rate(modality: Modality, rate: int) -> None:
    if modality.sample_rate and rate != modality.sample_rate:
        wanted = modality.sample_rate
        raise DecodeError(f"the clip has {rate} Hz, expected {wanted} Hz; resample it to {wanted} Hz")


def _check_channels(channels: int) -> None:
    if channels > 2:
        raise DecodeError(f"the clip has {channels} channels, expected 1 or 2; mix it down to mono")


def _text(modality: Modality, value: object, limits: Limits) -> Array:
    if not isinstance(value, str):
        raise DataError(f"expected text, got {type(value).__name__}; convert it to a string")
    limits.check("max_text_chars", len(value), "the number of characters")
    if not modality.tokenizer:
        raise DataError(f"modality {modality.name!r} has no tokenizer; load the data with load_data to measure one")
    ids = tokenizer_of(modality.tokenizer).encode(value).ids
    return np.asarray(ids[: modality.max_tokens or None], np.int64)


def _series(modality: Modality, value: object, limits: Limits) -> Array:
    frames = _numbers(value, limits)
    if frames.ndim == 1 and modality.channels <= 1:
        frames = frames[:, None]
    if frames.ndim != 2 or (modality.channels and frames.shape[1] != modality.channels):
        expected = f"(frames, {modality.channels or 'channels'})"
        raise DataError(f"expected {expected} numbers, got {frames.shape}; correct the row or the schema")
    limits.check("max_frames", len(frames), "the number of frames")
    return _finite_or_nan(frames)[: modality.frames or None]


def _table(modality: Modality, value: object, limits: Limits) -> Array:
    if isinstance(value, Mapping):
        if unknown := value.keys() - set(modality.fields):
            raise DataError(f"unknown fields {sorted(unknown)}; known are {list(modality.fields)}")
        value = [value.get(field) for field in modality.fields]
    fields = _numbers(value, limits)
    if fields.ndim != 1 or (modality.fields and len(fields) != len(modality.fields)):
        expected = f"({len(modality.fields) or 'fields'},)"
        raise DataError(f"expected {expected} numbers, got {fields.shape}; correct the row or the schema")
    return _finite_or_nan(fields)


def _numbers(value: object, limits: Limits) -> Array:
    if isinstance(value, np.ndarray):
        limits.check("max_values", value.size, "the number of values")
    try:
        # None becomes NaN; text and ragged lists do not convert
        with np.errstate(over="ignore"):  # what does not fit becomes infinite, and is refused as such
            return np.asarray(value, np.float32)
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError("expected numbers, in rows of one length; correct the row") from error


def _finite_or_nan(numbers: Array) -> Array:
    if np.isinf(numbers).any():
        raise DataError("found an infinite number; write NaN for a missing one, or correct it")
    return np.ascontiguousarray(numbers)
