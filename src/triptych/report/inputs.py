"""Raw inputs as small pictures, sounds and words that a page can hold."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np

from triptych.schema import Modality

THUMBNAIL_PIXELS = 160
WAVE_POINTS = 120
SERIES_LINES = 6
MAX_AUDIO_BYTES = 200_000
MAX_TEXT = 400
MAX_CODES = 60
POINT_CELLS = 80


def drawable(modality: Modality, value: Any) -> dict[str, Any]:
    """What the report shows for one raw input.

    image:  (height, width, channels) uint8
    audio:  (samples,) float32, NaN beyond its end
    text:   the text itself
    series: (frames, channels) float32
    table:  (fields,) float32, or a mapping field -> value
    video:  (frames, height, width, channels) uint8
    points: (points, features) float32
    codes:  (tokens, levels) int64, 1 + code
    """
    if value is None:
        return {"kind": modality.kind, "absent": True}
    return {"kind": modality.kind, **_DRAW[modality.kind](modality, value)}


def _image(_: Modality, value: Any) -> dict[str, Any]:
    from PIL import Image

    pixels = np.asarray(value, np.uint8)
    image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    image.thumbnail((THUMBNAIL_PIXELS, THUMBNAIL_PIXELS))
    stream = io.BytesIO()
    image.save(stream, "PNG", optimize=True)
    return {"src": _uri("image/png", stream.getvalue()), "width": image.width, "height": image.height}


def _audio(modality: Modality, value: Any) -> dict[str, Any]:
    samples = np.asarray(value, np.float32).reshape(-1)
    samples = samples[np.isfinite(samples)]
    drawn: dict[str, Any] = {"wave": envelope(samples), "seconds": len(samples) / max(modality.sample_rate, 1)}
    sound = _wav(samples, modality.sample_rate) if modality.sample_rate else b""
    if 0 < len(sound) <= MAX_AUDIO_BYTES:
        drawn["src"] = _uri("audio/wav", sound)
    return drawn


def _wav(samples: np.ndarray[Any, Any], rate: int) -> bytes:
    import wave

    stream = io.BytesIO()
    with wave.open(stream, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())
    return stream.getvalue()


def envelope(samples: np.ndarray[Any, Any], points: int = WAVE_POINTS) -> list[float]:
    """Largest magnitude in each of `points` equal spans, 1 for the loudest of the clip.  samples: (samples,)"""
    if not len(samples):
        return []
    edges = np.linspace(0, len(samples), min(points, len(samples)) + 1).astype(int)
    peaks = np.array([np.abs(samples[a:b]).max() for a, b in pairwise(edges)])
    return [round(float(peak), 3) for peak in peaks / max(float(peaks.max()), 1e-9)]


def _text(_: Modality, value: Any) -> dict[str, Any]:
    text = value if isinstance(value, str) else " ".join(str(token) for token in np.asarray(value).reshape(-1) if token)
    return {"text": text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 1] + "…"}


def _series(modality: Modality, value: Any) -> dict[str, Any]:
    """The channels with the most samples, thinned; the others are only counted."""
    frames = np.asarray(value, np.float32).reshape(len(value), -1)
    names = [*modality.fields, *(str(i) for i in range(len(modality.fields), frames.shape[1]))]
    fullest = np.sort(np.argsort(-np.isfinite(frames).sum(axis=0), kind="stable")[:SERIES_LINES])
    step = max(1, math.ceil(len(frames) / WAVE_POINTS))
    lines = {names[i]: _numbers(frames[::step, i]) for i in fullest}
    return {"lines": lines, "hidden": frames.shape[1] - len(fullest)}


def _table(modality: Modality, value: Any) -> dict[str, Any]:
    if isinstance(value, Mapping):
        return {"fields": {str(k): v for k, v in value.items()}}
    return {"fields": dict(zip(modality.fields, _numbers(np.asarray(value).reshape(-1)), strict=False))}


def _video(modality: Modality, value: Any) -> dict[str, Any]:
    """The frame in the middle."""
    return _image(modality, value[len(value) // 2])


def _points(modality: Modality, value: Any) -> dict[str, Any]:
    """How many points lie where, seen from above: the first feature to the right, the second upwards."""
    places = np.asarray(value, np.float32)[:, :2]
    places = places[np.isfinite(places).all(axis=1)]
    counts, _, _ = np.histogram2d(places[:, 1], places[:, 0], bins=POINT_CELLS)
    levels = np.log1p(counts[::-1]) * (255 / max(float(np.log1p(counts.max())), 1e-9))
    return _image(modality, levels.astype(np.uint8)[..., None])


def _codes(_: Modality, value: Any) -> dict[str, Any]:
    ids = np.asarray(value)
    return {"text": " ".join("/".join(str(code) for code in row - 1) for row in ids[ids.any(axis=1)][:MAX_CODES])}


def _numbers(values: np.ndarray[Any, Any]) -> list[float | None]:
    return [float(f"{v:.4g}") if math.isfinite(v) else None for v in values.tolist()]


def _uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


_DRAW = {
    "image": _image,
    "audio": _audio,
    "text": _text,
    "series": _series,
    "table": _table,
    "video": _video,
    "points": _points,
    "codes": _codes,
}
