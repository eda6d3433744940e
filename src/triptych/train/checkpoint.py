"""One safetensors file that holds a whole training run: written atomically, checked when read, never pickled."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from triptych.errors import TrainingError

FILE = "checkpoint.safetensors"
_VERSION = 1
_REMEDY = "delete it to start over, or restore it from a copy"


@dataclass(frozen=True)
class Checkpoint:
    """State of a run between two steps.

    tensors: by name, prefixed with the part that they belong to ("network.", "optimizer.", "average.", "best.")
    record:  counters and history as plain JSON values
    """

    tensors: Mapping[str, Tensor]
    record: Mapping[str, Any]

    def part(self, prefix: str) -> dict[str, Tensor]:
        """Tensors of one part, without the prefix."""
        return {name.removeprefix(prefix): t for name, t in self.tensors.items() if name.startswith(prefix)}


def write_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Replace the file at `path` in one step; a crash leaves either the old one or the new one.

    Raises TrainingError when the disk refuses.
    """
    tensors = {name: t.detach().cpu().contiguous().clone() for name, t in checkpoint.tensors.items()}
    header = {"version": _VERSION, "sha256": _digest(tensors.items()), "record": checkpoint.record}
    write_atomically(path, save(tensors, {"triptych": json.dumps(header)}))


def read_checkpoint(path: Path) -> Checkpoint:
    """Read what `write_checkpoint` wrote.  Raises TrainingError when the file is damaged or of another version."""
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {})["triptych"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        version, sha256, record = header["version"], header["sha256"], header["record"]
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise TrainingError(f"checkpoint {path} cannot be read ({error}); {_REMEDY}") from error
    if version != _VERSION:
        raise TrainingError(f"checkpoint {path} has version {version}, this release reads {_VERSION}; {_REMEDY}")
    if _digest(tensors.items()) != sha256:
        raise TrainingError(f"checkpoint {path} is damaged: its checksum does not match its contents; {_REMEDY}")
    return Checkpoint(tensors, record)


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that a reader finds the old content or the new, also after a power cut."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise TrainingError(f"cannot write {path} ({error.strerror}); free space or choose another folder") from error
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _digest(tensors: Iterable[tuple[str, Tensor]]) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors):
        digest.update(f"{name}{tensor.dtype}{tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
