"""Measuring candidates: quality, latency, memory, size and energy.

Importing this imports nothing else, because the workers whose memory is measured live in here.
"""

from importlib import import_module
from typing import Any

_HOME = {"Peer": "candidate", "Report": "report", "measure": "run"}

__all__ = sorted(_HOME)  # noqa: PLE0605 (one table, so that the list cannot drift from it)


def __getattr__(name: str) -> Any:
    """Load a public name on first use."""
    if name not in _HOME:
        raise AttributeError(f"module 'triptych.measure' has no attribute {name!r}; it has {__all__}")
    return getattr(import_module(f"triptych.measure.{_HOME[name]}"), name)
