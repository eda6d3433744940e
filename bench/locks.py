"""Who may use the machine: training runs beside other training, a measurement runs alone."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def beside_others(folder: Path) -> Iterator[None]:
    """Hold the machine together with others who do the same; wait while somebody is, or waits to be, alone."""
    with _held(folder, "door", fcntl.LOCK_EX):
        machine = _held(folder, "machine", fcntl.LOCK_SH)
        machine.__enter__()
    try:
        yield
    finally:
        machine.__exit__(None, None, None)


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold the machine alone: close the door to newcomers, then wait until the others are done."""
    with _held(folder, "door", fcntl.LOCK_EX), _held(folder, "machine", fcntl.LOCK_EX):
        yield


@contextmanager
def _held(folder: Path, name: str, kind: int) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{name}.lock").open("w") as file:
        fcntl.flock(file, kind)
        yield
