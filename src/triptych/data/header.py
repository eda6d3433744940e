"""What a file's first bytes declare, read without decoding it."""

from __future__ import annotations

import struct
from typing import Literal

from triptych.errors import DecodeError

_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_NO_LENGTH = frozenset({0x01, *range(0xD0, 0xD9)})


def media_kind(data: bytes) -> Literal["image", "audio"] | None:
    """Tell image from audio by the magic bytes; None for anything that is not on the allow-list."""
    if image_format(data):
        return "image"
    return "audio" if audio_format(data) else None


def image_format(data: bytes) -> str:
    """'PNG', 'JPEG', 'WEBP', or '' for anything else."""
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return "PNG"
    if data[:3] == b"\xff\xd8\xff":
        return "JPEG"
    return "WEBP" if data[:4] == b"RIFF" and data[8:12] == b"WEBP" else ""


def audio_format(data: bytes) -> str:
    """'WAV', 'FLAC', 'OGG', or '' for anything else."""
    if data[:4] == b"RIFF" and data[8:12] == b"WAVE":
        return "WAV"
    return {b"fLaC": "FLAC", b"OggS": "OGG"}.get(bytes(data[:4]), "")


def image_size(data: bytes) -> tuple[int, int]:
    """Declared (height, width) in pixels.  Raises DecodeError."""
    readers = {"PNG": _png_size, "JPEG": _jpeg_size, "WEBP": _webp_size}
    reader = readers.get(image_format(data))
    if reader is None:
        raise DecodeError(f"expected a PNG, JPEG or WebP image, got {_describe(data)}; convert it")
    try:
        height, width = reader(data)
    except (struct.error, IndexError, ValueError) as error:
        raise DecodeError(f"the {image_format(data)} image is cut off in its header; replace the file") from error
    if not (height and width):
        raise DecodeError(f"the image declares a size of {width}x{height} pixels; replace the file")
    return height, width


def check_wav_length(data: bytes) -> None:
    """Raise DecodeError if a WAV file declares more bytes of sound than it holds."""
    at = 12
    while at + 8 <= len(data):
        name, size = struct.unpack_from("<4sI", data, at)
        if name == b"data":
            if size > len(data) - at - 8:
                held = len(data) - at - 8
                raise DecodeError(
                    f"the WAV header declares {size} bytes of sound, the file holds {held}; write it anew"
                )
            return
        at += 8 + size + size % 2
    raise DecodeError("the WAV file has no sound chunk; replace the file")


def _describe(data: bytes) -> str:
    if audio_format(data):
        return f"{audio_format(data)} sound"
    return f"bytes that start with {bytes(data[:8])!r}" if data else "an empty file"


def _png_size(data: bytes) -> tuple[int, int]:
    width, height = struct.unpack_from(">II", data, 16)
    return height, width


def _jpeg_size(data: bytes) -> tuple[int, int]:
    at = 2
    while True:
        while data[at] == 0xFF:
            at += 1
        marker = data[at]
        if marker in _START_OF_FRAME:
            height, width = struct.unpack_from(">HH", data, at + 4)
            return height, width
        if marker in {0xD9, 0xDA}:
            raise DecodeError("the JPEG image has no frame header; replace the file")
        at += 1 if marker in _NO_LENGTH else 1 + struct.unpack_from(">H", data, at + 1)[0]
        at = data.index(b"\xff", at)


def _webp_size(data: bytes) -> tuple[int, int]:
    chunk = data[12:16]
    if chunk == b"VP8X":
        width, height = data[24] | data[25] << 8 | data[26] << 16, data[27] | data[28] << 8 | data[29] << 16
        return height + 1, width + 1
    if chunk == b"VP8L":
        bits = struct.unpack_from("<I", data, 21)[0]
        return (bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1
    if chunk == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return height & 0x3FFF, width & 0x3FFF
    raise DecodeError(f"unknown WebP chunk {bytes(chunk)!r}; convert the image")
