"""The machine and the software that a measurement holds for."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

_PACKAGES = ("triptych", "numpy", "onnxruntime", "torch", "safetensors", "tokenizers", "pillow", "soundfile")
_CPUINFO = Path("/proc/cpuinfo")
_MEMINFO = Path("/proc/meminfo")
_NOT_SOURCE = ("docs", "tests", "*.md")  # what git looks at beside these decides over '+changes'


def environment(*, threads: int) -> dict[str, Any]:
    """Processor, memory, operating system, package versions and source commit, as plain JSON values."""
    return {
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "usable_cores": len(os.sched_getaffinity(0)) if sys.platform == "linux" else None,
        "memory_bytes": memory_bytes(),
        "threads": threads,
        "load_1m": round(os.getloadavg()[0], 2),
        "system": platform.platform(),
        "python": platform.python_version(),
        "packages": versions(_PACKAGES),
        "commit": commit(Path(__file__)),
    }


def cpu_model(cpuinfo: Path = _CPUINFO) -> str:
    """Name of the processor, or its architecture where the system does not tell."""
    return _field(cpuinfo, "model name") or platform.processor() or platform.machine()


def memory_bytes(meminfo: Path = _MEMINFO) -> int | None:
    """Installed memory; None where the system does not tell."""
    found = _field(meminfo, "MemTotal")
    return int(found.split()[0]) * 1024 if found else None


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Versions of those packages that are installed."""
    found = {}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def commit(source: Path) -> str | None:
    """Git commit of the checkout that holds a source file; None outside a checkout.

    '+changes' follows where anything but documents and tests was edited: a figure depends on nothing of those, and
    writing figures down must not mark the next ones.
    """
    git = shutil.which("git")
    if git is None or _git(git, source, "ls-files", "--error-unmatch", source.name) is None:
        return None
    head = _git(git, source, "rev-parse", "HEAD")
    if head is None:
        return None
    sources = [":(top)", *(f":(top,exclude){pattern}" for pattern in _NOT_SOURCE)]
    changed = _git(git, source, "status", "--porcelain", "--untracked-files=no", "--", *sources)
    return f"{head}+changes" if changed else head


def _git(git: str, source: Path, *arguments: str) -> str | None:
    done = subprocess.run([git, "-C", str(source.parent), *arguments], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None


def _field(path: Path, name: str) -> str | None:
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return None
    return next((line.partition(":")[2].strip() for line in lines if line.partition(":")[0].strip() == name), None)
