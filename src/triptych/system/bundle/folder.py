"""A folder that appears whole or not at all, whatever happens while it is written."""

from __future__ import annotations

import ctypes
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from triptych.errors import BundleError
from triptych.system.runtime.files import MANIFEST

_EXCHANGE = 2
_HERE = -100


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """A temporary folder beside the target that takes its place when the block ends without an error.

    Until then the target is untouched; it is exchanged in one step where the system can (Linux: renameat2), else by
    two renames. What a killed writer left behind is removed by the next one.
    Raises BundleError where the target is something else than a bundle, or the disk fails.
    """
    target = target.absolute()
    _check_target(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove_stale(target)
        temporary = Path(tempfile.mkdtemp(prefix=_prefix(target), dir=target.parent))
    except OSError as error:
        raise BundleError(f"cannot write beside {target}: {error}") from error
    lock = os.open(temporary, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        temporary.chmod(0o755)
        yield temporary
        _sync(temporary)
        _swap(temporary, target)
        _sync(target.parent)
    except OSError as error:
        raise BundleError(f"cannot write the bundle {target}: {error}; what was there before is untouched") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        os.close(lock)


def write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files by relative name and wait until they are on the disk."""
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        with path.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    for parent in {(folder / name).parent for name in files}:
        _sync(parent)


def _prefix(target: Path) -> str:
    return f".{target.name}.writing-"


def _check_target(target: Path) -> None:
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        raise BundleError(f"{target} is a link or a file; give a folder for the bundle")
    if target.is_dir() and any(target.iterdir()) and not (target / MANIFEST).is_file():
        raise BundleError(f"{target} holds something else than a bundle; give a new or empty folder")


def _remove_stale(target: Path) -> None:
    """Remove temporary folders whose writer is gone: nobody holds their lock."""
    for path in target.parent.glob(f"{_prefix(target)}*"):
        lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path, ignore_errors=True)
        except BlockingIOError:
            continue
        finally:
            os.close(lock)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _swap(temporary: Path, target: Path) -> None:
    """Put the new folder in place; the old one is then where the new one was."""
    if not target.exists() or not any(target.iterdir()):
        temporary.rename(target)
    elif not _exchange(temporary, target):
        _swap_by_renames(temporary, target)


def _exchange(one: Path, other: Path) -> bool:
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    return renameat2 is not None and renameat2(_HERE, os.fsencode(one), _HERE, os.fsencode(other), _EXCHANGE) == 0


def _swap_by_renames(temporary: Path, target: Path) -> None:
    aside = temporary.with_name(f"{temporary.name}-old")
    target.rename(aside)
    try:
        temporary.rename(target)
    except OSError:
        aside.rename(target)
        raise
    shutil.rmtree(aside, ignore_errors=True)
