"""Peak resident memory of a process, and what a bare Python process with numpy needs."""

from __future__ import annotations

import sys
from pathlib import Path

from triptych.measure.process import Worker

_PROC = Path("/proc")
_BARE = "import sys, numpy; sys.stdin.readline(); print('{}', flush=True); sys.stdin.read()"


def peak_bytes(pid: int, proc: Path = _PROC) -> int | None:
    """Peak resident bytes (VmHWM) of a process and those it started, added up; None where the system has no VmHWM.

    The peaks of several processes need not fall together, so their sum is an upper bound.
    """
    peaks = [_high_water(proc / str(p) / "status") for p in (pid, *_descendants(pid, proc))]
    return None if peaks[0] is None else sum(p for p in peaks if p is not None)


def floor_bytes(timeout_s: float = 60.0) -> int | None:
    """Peak resident bytes of a Python process that has only imported numpy."""
    with Worker("floor", (sys.executable, "-c", _BARE), timeout_s=timeout_s) as bare:
        bare.ask("load")
        return peak_bytes(bare.pid)


def _high_water(status: Path) -> int | None:
    try:
        lines = status.read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), None)


def _descendants(pid: int, proc: Path) -> list[int]:
    parents: dict[int, list[int]] = {}
    for stat in proc.glob("[0-9]*/stat"):
        try:
            after_name = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it ended while we looked
        parents.setdefault(int(after_name[1]), []).append(int(stat.parent.name))
    found: list[int] = []
    waiting = [pid]
    while waiting:
        children = parents.get(waiting.pop(), [])
        found += children
        waiting += children
    return found
