"""Image resizing in numpy: the formula that training, the graphs and the runtime share."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

_ROWS_AT_ONCE = 256


def resize(image: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Resize with an antialiased triangle filter, stretching to the new shape.

    image: (height, width, channels) uint8, returns the same with the new height and width.  Each axis is
    multiplied by `triangle(old, new)`; the result is rounded half up.
    """
    if image.shape[:2] == (height, width):
        return image
    old_height, old_width, channels = image.shape
    rows = _reduce_rows(image.reshape(old_height, -1), triangle(old_height, height))
    columns = triangle(old_width, width) @ rows.reshape(height, old_width, channels)
    result: NDArray[np.uint8] = np.clip(np.floor(columns + np.float32(0.5)), 0, 255).astype(np.uint8)
    return result


@lru_cache(maxsize=256)
def triangle(old: int, new: int) -> NDArray[np.float32]:
    """Weights of the triangle filter: (new, old), rows sum to one."""
    scale = np.float32(old / new)
    centers = (np.arange(new, dtype=np.float32) + np.float32(0.5)) * scale
    distance = np.abs(np.arange(old, dtype=np.float32) + np.float32(0.5) - centers[:, None])
    weights = np.maximum(np.float32(0), 1 - distance / max(scale, np.float32(1)))
    normal: NDArray[np.float32] = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    return normal


def _reduce_rows(image: NDArray[np.uint8], weights: NDArray[np.float32]) -> NDArray[np.float32]:
    """Weigh rows in blocks, so that a large photo is never held in float."""
    result = np.zeros((len(weights), image.shape[1]), np.float32)
    for start in range(0, len(image), _ROWS_AT_ONCE):
        block = weights[:, start : start + _ROWS_AT_ONCE]
        used = np.flatnonzero(block.any(axis=1))
        result[used] += block[used] @ image[start : start + _ROWS_AT_ONCE].astype(np.float32)
    return result
