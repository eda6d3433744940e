"""Values that are arrays from the start: deep images, frames, points and codes.  Torch-free.

They come as arrays, as nested lists, or as NumPy files (.npy) whose header is checked against the caps before anything
is read.  Video containers are not decoded: frames have to be taken from them beforehand.
"""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triptych.data.limits import Limits
from triptych.errors import DataError, DecodeError
from triptych.schema import Modality

Array = NDArray[Any]
_MAGIC = b"\x93NUMPY"
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
_LEVELS = 32.0  # grey levels per spread: what lies 4 spreads from the median or farther is clipped


def is_npy(data: bytes) -> bool:
    """True for the bytes of a NumPy file."""
    return data.startswith(_MAGIC)


def read_npy(data: bytes, limits: Limits) -> Array:
    """The array of a NumPy file, read without pickle.  Raises DecodeError or LimitError before it is built."""
    if not is_npy(data):
        start = bytes(data[:8])
        raise DecodeError(
            f"expected a NumPy file (.npy), got bytes that start with {start!r}; media containers such as MP4 are not "
            "decoded here: save the frames, points or codes as an array"
        )
    stream = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(stream)
        one = version == (1, 0)
        header = np.lib.format.read_array_header_1_0 if one else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = header(stream)
    except (ValueError, TypeError, EOFError) as error:
        raise DecodeError(f"the header of the NumPy file is damaged ({error}); replace the file") from error
    if dtype.kind not in "uif" or min(shape, default=0) < 0:
        raise DecodeError(f"expected a NumPy file of numbers, got {dtype} of shape {shape}; convert the array")
    count = math.prod(shape)
    limits.check("max_values", count, "the number of values")
    if len(data) - stream.tell() != count * dtype.itemsize:
        raise DecodeError(f"the NumPy file declares {count} values and holds another number; replace the file")
    flat: Array = np.frombuffer(data, dtype, count, stream.tell())
    return flat.reshape(shape, order="F" if fortran else "C")


def plain(value: object, limits: Limits) -> Array:
    """An array or nested lists as an array of numbers.  Raises DataError."""
    if isinstance(value, np.ndarray):
        limits.check("max_values", value.size, "the number of values")
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise DataError("expected numbers, in rows of one length; correct the row") from error
    limits.check("max_values", array.size, "the number of values")
    if array.dtype.kind not in "uif":
        raise DataError(f"expected numbers, got {array.dtype}; correct the row")
    return array


def recolour(image: Array, channels: int) -> Array:
    """Grey to colour or back.  image: (..., 1 or 3) uint8 → (..., channels) uint8; channels 0 leaves it alone"""
    if channels in {0, image.shape[-1]}:
        return image
    if channels == 3:
        return np.repeat(image, 3, axis=-1)
    return np.asarray((image @ _LUMA + 0.5).astype(np.uint8)[..., None])


def eight_bits(modality: Modality, values: Array) -> Array:
    """Depth, heat and other deep maps as grey levels: 128 + 32 · (x − median) / spread, 128 where nothing is known.

    An image network reads (level − 128) / 64, so that robust scaling per dataset is what it gets, in steps of 1/32 of
    a spread.  values: (height, width[, 1]) numbers, NaN where nothing was measured → (height, width, 1) uint8.  Raises
    DecodeError for 8-bit values, whose unit is another.
    """
    if values.ndim == 2:
        values = values[..., None]
    if values.ndim != 3 or values.shape[2] != 1 or values.dtype.kind not in "uif" or values.dtype.itemsize < 2:
        given = f"{values.dtype} {values.shape}"
        raise DecodeError(f"expected (height, width) values of 16 bits or more, as in training, got {given}")
    numbers = values.astype(np.float32)
    if np.isinf(numbers).any():
        raise DecodeError("found an infinite value; write NaN where nothing was measured")
    levels = 128 + _LEVELS * (numbers - np.float32(modality.center[0])) / np.float32(modality.scale[0])
    return np.where(np.isnan(levels), 128, (levels + 0.5).clip(0, 255)).astype(np.uint8)


def video(modality: Modality, array: Array, limits: Limits) -> Array:
    """(frames, height, width[, 1 or 3]) whole numbers from 0 to 255 → (frames, height, width, channels) uint8."""
    frames = array[..., None] if array.ndim == 3 else array
    if frames.ndim != 4 or frames.shape[3] not in {1, 3} or frames.dtype.kind not in "ui":
        given = f"{array.dtype} {array.shape}"
        raise DecodeError(f"expected (frames, height, width, 1 or 3) uint8 pixels, got {given}; convert the array")
    height, width = frames.shape[1:3]
    limits.check("max_frames", len(frames), "the number of frames")
    limits.check("max_pixels", height * width, f"the number of pixels ({width}x{height})")
    limits.check("max_aspect", max(height, width) / max(1, min(height, width)), f"the aspect ratio ({width}x{height})")
    if frames.dtype != np.uint8 and (frames.min() < 0 or frames.max() > 255):
        raise DecodeError(f"expected pixels from 0 to 255, got {frames.min()} to {frames.max()}; scale them first")
    return recolour(frames.astype(np.uint8, copy=False), modality.channels)


def points(modality: Modality, array: Array, limits: Limits) -> Array:  # noqa: ARG001
    """(points, features) numbers, NaN where missing → the same in float32."""
    if array.ndim != 2 or (modality.channels and array.shape[1] != modality.channels):
        expected = f"(points, {modality.channels or 'features'})"
        raise DataError(f"expected {expected} numbers, got {array.shape}; correct the row or the schema")
    with np.errstate(over="ignore"):  # what does not fit becomes infinite, and is refused as such
        cloud = np.ascontiguousarray(array, np.float32)
    if np.isinf(cloud).any():
        raise DataError("found an infinite number; write NaN for a missing one, or correct it")
    return cloud


def codes(modality: Modality, array: Array, limits: Limits) -> Array:  # noqa: ARG001
    """(tokens[, levels]) whole numbers, -1 where there is none → (tokens, levels) int64 ids, 1 + code."""
    ids = array[:, None] if array.ndim == 1 else array
    if ids.ndim != 2 or ids.dtype.kind not in "ui" or (modality.channels and ids.shape[1] != modality.channels):
        expected = f"(tokens, {modality.channels or 'levels'})"
        raise DataError(f"expected {expected} whole numbers, got {array.dtype} {array.shape}; correct the row")
    entries = modality.vocabulary - 1 if modality.vocabulary else np.iinfo(np.int64).max
    if ids.min() < -1 or ids.max() >= entries:
        raise DataError(f"codes must be in [-1, {entries}), got [{ids.min()}, {ids.max()}]; declare 'vocabulary'")
    return ids.astype(np.int64) + 1


READ = {"video": video, "points": points, "codes": codes}
