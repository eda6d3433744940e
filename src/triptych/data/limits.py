"""Caps on what is decoded, checked against headers before any work is done."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from triptych.errors import LimitError


@dataclass(frozen=True, slots=True)
class Limits:
    """Upper limits for one value. The defaults suit untrusted input on a small machine."""

    max_bytes: int = 32 << 20  # encoded bytes of an image or a clip
    max_pixels: int = 40_000_000
    max_aspect: float = 100.0  # longer side over shorter side of an image
    max_samples: int = 16_000_000  # audio samples over all channels
    max_seconds: float = 600.0  # audio
    max_text_chars: int = 100_000
    max_frames: int = 200_000  # series
    max_values: int = 20_000_000  # numbers in a series or a table row

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if not getattr(self, field.name) > 0:
                raise LimitError(f"{field.name} must be positive, got {getattr(self, field.name)}")

    def check(self, name: str, given: float, what: str) -> None:
        """Raise LimitError if `given` exceeds the limit called `name`."""
        cap = getattr(self, name)
        if given > cap:
            raise LimitError(f"{what} is {given:g}, the limit {name} is {cap:g}; make it smaller or raise the limit")
