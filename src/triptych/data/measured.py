"""Fill in the schema fields that are measured on the training split."""

from __future__ import annotations

import dataclasses
import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triptych.data.arrays import is_npy, read_npy
from triptych.data.decode import clip_header, decode, deep_map, media_bytes
from triptych.data.feed import Feed, Table
from triptych.data.header import image_format, image_size
from triptych.data.limits import Limits
from triptych.errors import DataError
from triptych.schema import Modality

Array = NDArray[Any]
MAX_CLIP_S = 8.0
MAX_TOKENS = 128
MAX_WORDS = 8000
MAX_SIDE = 224  # pixels, where the size is inferred
MAX_FRAMES = 16  # of a video, where the number is inferred
MAX_POINTS = 4096  # of a cloud, where the number is inferred
_TINY_VOCABULARY = 200
_SAMPLED = 64  # videos, clouds and deep maps that are looked at


def measure_modality(modality: Modality, table: Table, rows: Array) -> Modality:
    """Set the measured fields of a modality from the given rows.  Raises DataError.

    Reads headers of images and clips, and the values of the other kinds.
    """
    feed = Feed(table, modality)
    rows = rows[feed.present[rows]]
    if not len(rows):
        raise DataError(f"no train row holds modality {modality.name!r}; remove it from the schema or add rows")
    return _MEASURES[modality.kind](modality, feed, rows)


def target_scale(targets: Array) -> tuple[float, float]:
    """Mean and standard deviation of the known targets; a spread of zero becomes 1."""
    known = targets[np.isfinite(targets)].astype(np.float64)
    if not len(known):
        return 0.0, 1.0
    return float(known.mean()), float(known.std()) or 1.0


def build_tokenizer(texts: Iterable[str]) -> tuple[str, int]:
    """A lower-case word tokenizer as JSON, and its vocabulary size.

    Id 0 is padding, 1 is any unknown word; then the words seen twice or more (once where the vocabulary is tiny),
    most frequent first.
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    lower, words = normalizers.Lowercase(), pre_tokenizers.Whitespace()
    counts: Counter[str] = Counter()
    for text, times in Counter(texts).items():
        for word, _ in words.pre_tokenize_str(lower.normalize_str(text)):
            counts[word] += times
    least = 1 if len(counts) < _TINY_VOCABULARY else 2
    ranked = sorted((word for word in counts if counts[word] >= least), key=lambda word: (-counts[word], word))
    vocabulary = {word: i for i, word in enumerate(["[PAD]", "[UNK]", *ranked[: MAX_WORDS - 2]])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))  # noqa: S106
    tokenizer.normalizer, tokenizer.pre_tokenizer = lower, words
    return json.dumps(json.loads(tokenizer.to_str()), separators=(",", ":"), ensure_ascii=False), len(vocabulary)


def robust_scale(values: Array) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Median and spread per column, ignoring NaN.  values: (rows, columns)

    The spread is the interquartile range over 1.349 (the standard deviation of a normal sample); where that is
    zero the standard deviation, then 1.
    """
    centers, scales = zip(*(_column_scale(column[~np.isnan(column)]) for column in values.T), strict=True)
    return centers, scales


def _column_scale(known: Array) -> tuple[float, float]:
    if not len(known):
        return 0.0, 1.0
    low, center, high = np.percentile(known.astype(np.float64), [25, 50, 75])
    spread = (high - low) / 1.349 or float(known.astype(np.float64).std()) or 1.0
    return float(center), float(spread)


def _p99(lengths: Sequence[int]) -> int:
    return max(1, int(np.percentile(lengths, 99, method="higher")))


def _measure_image(modality: Modality, feed: Feed, rows: Array) -> Modality:
    modality = _measure_depth(modality, feed, rows)
    if modality.height and modality.width and modality.channels:
        return modality
    height, width = _common_size(Counter(_each(feed, rows, partial(_size_of, limits=feed.table.limits))))
    height, width = modality.height or height, modality.width or width
    channels = modality.channels or max(_each(feed, rows[:64], partial(_channels_of, limits=feed.table.limits)))
    return dataclasses.replace(modality, height=height, width=width, channels=channels)


def _measure_depth(modality: Modality, feed: Feed, rows: Array) -> Modality:
    """Median and spread where the images hold more than 8 bits, as depth and heat maps do; else unchanged."""
    if modality.channels == 3 or not _is_deep(feed.raw(int(rows[0])), feed.table.limits):
        return modality
    maps = _each(feed, rows[:_SAMPLED], partial(_flat_map, limits=feed.table.limits))
    center, scale = robust_scale(np.concatenate(maps)[:, None])
    return dataclasses.replace(modality, channels=1, center=center, scale=scale)


def _is_deep(value: object, limits: Limits) -> bool:
    """Whether an image holds more than 8 bits: told by its type, or by a PNG's header.

    No where it cannot be read: the error that names the row comes when it is decoded.
    """
    if isinstance(value, np.ndarray):
        return bool(value.dtype.itemsize > 1)
    if isinstance(value, list):
        return True
    try:
        data = media_bytes(value, limits)
    except DataError:
        return False
    return is_npy(data) or (image_format(data) == "PNG" and data[24:26] == b"\x10\x00")  # 16 bits of grey


def _flat_map(value: object, *, limits: Limits) -> Array:
    """At most some thousand values of a deep map: (values,) float32."""
    flat = deep_map(value, limits).astype(np.float32).ravel()
    return flat[:: max(1, len(flat) // 4096)]


def _common_size(sizes: Counter[tuple[int, int]]) -> tuple[int, int]:
    """The size that most images have, else the 95th percentile of each side; at most MAX_SIDE pixels a side."""
    (height, width), times = sizes.most_common(1)[0]
    if times * 2 <= sizes.total():
        height, width = np.percentile(list(sizes.elements()), 95, axis=0, method="higher").tolist()
    shrink = min(1.0, MAX_SIDE / max(height, width))
    return max(1, round(height * shrink)), max(1, round(width * shrink))


def _measure_audio(modality: Modality, feed: Feed, rows: Array) -> Modality:
    headers = _each(feed, rows, partial(_clip_of, rate=modality.sample_rate, limits=feed.table.limits))
    rate = modality.sample_rate or _most_common(rate for _, rate in headers)
    if not rate:
        raise DataError(f"the sample rate of {modality.name!r} is unknown; declare 'sample_rate' in dataset.toml")
    step = max(1, round(rate / 100))
    longest = min(_p99([frames for frames, _ in headers]), int(MAX_CLIP_S * rate))
    samples = modality.max_samples or math.ceil(longest / step) * step
    return dataclasses.replace(modality, sample_rate=rate, channels=1, max_samples=samples)


def _measure_text(modality: Modality, feed: Feed, rows: Array) -> Modality:
    texts = _each(feed, rows, _text_of)
    document, vocabulary = build_tokenizer(texts)
    ready = dataclasses.replace(modality, tokenizer=document, vocabulary=vocabulary, max_tokens=0)
    size = {text: len(decode(ready, text, feed.table.limits)) for text in set(texts)}
    longest = modality.max_tokens or min(MAX_TOKENS, _p99([size[text] for text in texts]))
    return dataclasses.replace(ready, max_tokens=longest)


def _measure_series(modality: Modality, feed: Feed, rows: Array) -> Modality:
    arrays = [feed.decoded(int(row)) for row in rows]
    real = [array for array in arrays if array is not None]
    channels = modality.channels or _most_common(array.shape[1] for array in real)
    frames = modality.frames or _p99([len(array) for array in real])
    center, scale = robust_scale(np.concatenate([a[:frames] for a in real if a.shape[1] == channels]))
    return dataclasses.replace(modality, channels=channels, frames=frames, center=center, scale=scale)


def _measure_table(modality: Modality, feed: Feed, rows: Array) -> Modality:
    arrays = [feed.decoded(int(row)) for row in rows]
    width = _most_common(len(array) for array in arrays if array is not None)
    center, scale = robust_scale(np.stack([a for a in arrays if a is not None and len(a) == width]))
    fields = modality.fields or tuple(f"f{i}" for i in range(width))
    return dataclasses.replace(modality, fields=fields, center=center, scale=scale)


def _measure_video(modality: Modality, feed: Feed, rows: Array) -> Modality:
    if modality.frames and modality.height and modality.width and modality.channels:
        return modality
    shapes = [array.shape for array in (feed.decoded(int(row)) for row in rows[:_SAMPLED]) if array is not None]
    height, width = _common_size(Counter(shape[1:3] for shape in shapes))
    return dataclasses.replace(
        modality,
        frames=modality.frames or min(MAX_FRAMES, _p99([shape[0] for shape in shapes])),
        height=modality.height or height,
        width=modality.width or width,
        channels=modality.channels or max(shape[3] for shape in shapes),
    )


def _measure_points(modality: Modality, feed: Feed, rows: Array) -> Modality:
    clouds = [array for array in (feed.decoded(int(row)) for row in rows[:_SAMPLED]) if array is not None]
    features = modality.channels or _most_common(cloud.shape[1] for cloud in clouds)
    count = modality.max_points or min(MAX_POINTS, _p99([len(cloud) for cloud in clouds]))
    center, scale = robust_scale(np.concatenate([cloud for cloud in clouds if cloud.shape[1] == features]))
    return dataclasses.replace(modality, channels=features, max_points=count, center=center, scale=scale)


def _measure_codes(modality: Modality, feed: Feed, rows: Array) -> Modality:
    ids = [array for array in (feed.decoded(int(row)) for row in rows) if array is not None]
    levels = modality.channels or _most_common(array.shape[1] for array in ids)
    tokens = modality.max_tokens or _p99([len(array) for array in ids])
    vocabulary = modality.vocabulary or 1 + max(int(array.max()) for array in ids)
    return dataclasses.replace(modality, channels=levels, max_tokens=tokens, vocabulary=vocabulary)


def _most_common(numbers: Iterable[int]) -> int:
    return Counter(numbers).most_common(1)[0][0]


def _each(feed: Feed, rows: Array, read: Callable[[Any], Any]) -> list[Any]:
    """Read something of every row's undecoded value; an error names row and column."""
    found = []
    for row in rows:
        try:
            found.append(read(feed.raw(int(row))))
        except DataError as error:
            raise type(error)(f"{feed.table.where(int(row), feed.modality.column)}: {error}") from error
    return found


def _text_of(value: object) -> str:
    if not isinstance(value, str):
        raise DataError(f"expected text, got {type(value).__name__}; convert it to a string or correct 'kind'")
    return value


def _size_of(value: object, *, limits: Limits) -> tuple[int, int]:
    if isinstance(value, np.ndarray | list):
        return np.shape(value)[:2]
    data = media_bytes(value, limits)
    return read_npy(data, limits).shape[:2] if is_npy(data) else image_size(data)


def _channels_of(value: object, *, limits: Limits) -> int:
    """1 for an image without colour, else 3."""
    pixels = decode(Modality(name="image", kind="image", channels=3), value, limits)
    return 1 if (pixels == pixels[..., :1]).all() else 3


def _clip_of(value: object, *, rate: int, limits: Limits) -> tuple[int, int]:
    """(frames, sample rate) of a clip; an inline one without a rate has rate 0."""
    if isinstance(value, np.ndarray | list):
        return len(value), rate
    if isinstance(value, dict) and value.get("array") is not None:
        return len(value["array"]), int(value.get("sampling_rate") or 0)
    frames, declared, _ = clip_header(media_bytes(value, limits))
    return frames, declared


_MEASURES: dict[str, Callable[[Modality, Feed, Array], Modality]] = {
    "image": _measure_image,
    "audio": _measure_audio,
    "text": _measure_text,
    "series": _measure_series,
    "table": _measure_table,
    "video": _measure_video,
    "points": _measure_points,
    "codes": _measure_codes,
}
