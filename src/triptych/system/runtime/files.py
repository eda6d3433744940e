"""Reading a bundle's folder as untrusted input: no links, no unknown files, nothing outside, every byte hashed.

Hashing uses the interpreter's own SHA-256 for files up to 32 MB: `hashlib` would load OpenSSL, 3.6 MB of resident
memory, to hash at 1.8 GB/s what takes a small bundle 3 ms per megabyte without it.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import IO, Any

from triptych.errors import BundleError

MANIFEST, WEIGHTS, GOLDEN, CARD = "manifest.json", "graphs/weights.bin", "golden.safetensors", "MODEL_CARD.md"
_NAME = re.compile(
    r"(graphs/[A-Za-z_]\w*(\.(blocks|encode|exit|resize|stem))?\.onnx|tokenizer\.[A-Za-z_]\w*\.json)", re.ASCII
)
_CHUNK = 1 << 20
_SMALL = 32 << 20
_FLAGS = os.O_RDONLY  # and, where the system has them: follow no link, wait for no pipe, translate nothing
for _flag in ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_BINARY"):
    _FLAGS |= getattr(os, _flag, 0)


@dataclass(frozen=True, slots=True)
class Entry:
    """Size and hash of one file."""

    bytes: int
    sha256: str


def digest(data: bytes) -> str:
    """SHA-256 in hexadecimal."""
    return str(_hasher(len(data))(data).hexdigest())


def is_bundle_file(name: str) -> bool:
    """Whether a bundle may hold a file of this name, besides the manifest."""
    return name in {WEIGHTS, GOLDEN, CARD} or _NAME.fullmatch(name) is not None


def read_file(folder: str, name: str, limit: int) -> bytes:
    """Content of one file of the bundle.  Raises BundleError if it is a link, no file, or longer than `limit` bytes."""
    with _open(folder, name) as file:
        size = os.fstat(file.fileno()).st_size
        if size > limit:
            raise BundleError(f"{name} has {size} bytes, it may have {limit}; export or copy the bundle again")
        return file.read(size)


def read_verified(folder: str, name: str, entry: Entry) -> bytes:
    """Content of one file, equal to what the manifest promises."""
    data = read_file(folder, name, entry.bytes)
    _compare(name, entry, len(data), digest(data))
    return data


def check_names(folder: str, files: Mapping[str, Entry]) -> None:
    """Raise BundleError unless the folder holds the manifest, the files that it lists and nothing else."""
    if wrong := [name for name in files if not is_bundle_file(name)]:
        raise BundleError(f"manifest.json lists {wrong}, which no bundle holds")
    found = {name for name in _walk(folder) if name != MANIFEST}
    if unknown := found - files.keys():
        raise BundleError(f"the bundle holds unknown files {sorted(unknown)}; remove them or export it again")
    if missing := files.keys() - found:
        raise BundleError(f"the bundle lacks {sorted(missing)}; copy the whole folder")


def check_contents(folder: str, files: Mapping[str, Entry]) -> None:
    """Raise BundleError unless every file has the size and hash that the manifest promises."""
    for name, entry in files.items():
        hasher, size = _hasher(entry.bytes)(), 0
        with _open(folder, name) as file:
            while size <= entry.bytes and (chunk := file.read(_CHUNK)):
                hasher.update(chunk)
                size += len(chunk)
        _compare(name, entry, size, hasher.hexdigest())


def _hasher(size: int) -> Callable[..., Any]:
    return _light_sha256() if size <= _SMALL else _fast_sha256()


@cache
def _light_sha256() -> Callable[..., Any]:
    """The interpreter's own: `_sha2` from Python 3.12 on, `_sha256` before, as the standard library's `random` does."""
    for module in ("_sha2", "_sha256"):
        with suppress(ImportError):
            found: Callable[..., Any] = import_module(module).sha256
            return found
    return _fast_sha256()


def _fast_sha256() -> Callable[..., Any]:
    from hashlib import sha256

    return sha256


def _compare(name: str, entry: Entry, size: int, sha256: str) -> None:
    if (size, sha256) != (entry.bytes, entry.sha256):
        raise BundleError(
            f"{name} is damaged: {entry.bytes} bytes with SHA-256 {entry.sha256[:12]}… were expected, "
            f"{size} bytes with {sha256[:12]}… were found; export or copy the bundle again"
        )


def _walk(folder: str) -> list[str]:
    names = []
    for entry in _scan(folder, ""):
        if entry.name == "graphs" and entry.is_dir(follow_symlinks=False):
            names += [f"graphs/{_plain(inner)}" for inner in _scan(folder, "graphs")]
        else:
            names.append(_plain(entry))
    return names


def _scan(folder: str, name: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(os.path.join(folder, name)) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except (OSError, ValueError) as error:
        raise BundleError(f"{folder!r} is not a readable bundle folder: {error}") from error


def _plain(entry: os.DirEntry[str]) -> str:
    _check_plain(entry.name, entry.stat(follow_symlinks=False))
    return entry.name


def _check_plain(name: str, info: os.stat_result) -> None:
    if not stat.S_ISREG(info.st_mode) or info.st_nlink != 1:
        raise BundleError(f"{name!r} is a link or not a plain file; a bundle holds plain files only")


def _open(folder: str, name: str) -> IO[bytes]:
    try:
        descriptor = os.open(os.path.join(folder, name), _FLAGS)
    except OSError as error:
        raise BundleError(f"cannot read {name} of the bundle {folder!r}: {error.strerror}") from error
    file = os.fdopen(descriptor, "rb")
    try:
        _check_plain(name, os.fstat(descriptor))
    except BundleError:
        file.close()
        raise
    return file
