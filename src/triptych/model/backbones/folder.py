"""Hugging Face folders as untrusted input: safetensors and JSON only, with caps on their sizes."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from triptych.errors import ModelError

WEIGHTS = "model.safetensors"
_MAX_BYTES = {WEIGHTS: 4 << 30, "tokenizer.json": 64 << 20}
_MAX_JSON_BYTES = 1 << 20


@dataclass(frozen=True)
class Folder:
    """What a folder says of a network.

    config:  its config.json
    tensors: its weights, as float32
    """

    path: Path
    config: Mapping[str, Any]
    tensors: Mapping[str, Tensor] = field(repr=False)

    def record(self, name: str) -> Mapping[str, Any]:
        """Another JSON file of the folder; empty where there is none."""
        return _record(self.path / name) if (self.path / name).is_file() else {}

    def text(self, name: str) -> str:
        """A file as text; empty where there is none."""
        return _text(self.path / name) if (self.path / name).is_file() else ""

    def with_config(self, part: str) -> Folder:
        """The same folder seen through a part of its config, where it holds several networks."""
        inner = self.config.get(part)
        return self if not isinstance(inner, Mapping) else Folder(self.path, inner, self.tensors)

    def number(self, name: str, default: float | None = None) -> Any:
        """A number of the config.  Raises ModelError where it is missing and has no default."""
        value = self.config.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ModelError(f"{self.path / 'config.json'}: {name!r} must be a number, got {value!r}")
        return value

    def renamed(
        self, sources: Mapping[str, Sequence[str]], *, prefix: str = "", spare: str = "(?!)"
    ) -> dict[str, Tensor]:
        """Tensors under our names.

        sources: for each of our names the folder's names, which are joined along their first axis
        prefix:  what the folder's names may start with, such as 'bert.'
        spare:   regular expression of names (without prefix) that the folder may hold in vain
        Raises ModelError that names what is missing and what is left over.
        """
        given = {name.removeprefix(prefix): tensor for name, tensor in self.tensors.items()}
        used = {name for names in sources.values() for name in names}
        if missing := sorted(used - given.keys()):
            raise ModelError(f"{self.path / WEIGHTS} lacks {_some(missing)}; it must be the network of its config.json")
        left = sorted(name for name in given.keys() - used if not re.fullmatch(spare, name))
        if left:
            raise ModelError(f"{self.path / WEIGHTS} holds {_some(left)}, which this network has no use for")
        try:
            return {
                ours: given[names[0]] if len(names) == 1 else torch.cat([given[name] for name in names])
                for ours, names in sources.items()
            }
        except RuntimeError as error:
            raise ModelError(
                f"{self.path / WEIGHTS} holds tensors of sizes that do not go together: {error}"
            ) from error


def open_folder(path: str | Path) -> Folder:
    """Read config.json and model.safetensors.  Raises ModelError where they are missing, too large or damaged."""
    path = Path(path)
    if not (path / "config.json").is_file() or not (path / WEIGHTS).is_file():
        remedy = f"give a Hugging Face folder with config.json and {WEIGHTS} (one file; pickled weights are not read)"
        raise ModelError(f"{path} holds no readable network; {remedy}")
    _check_bytes(path / WEIGHTS)
    try:
        tensors = load_file(path / WEIGHTS)
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(f"{path / WEIGHTS} cannot be read: {error}; fetch it again") from error
    return Folder(path, _record(path / "config.json"), {name: _float(tensor) for name, tensor in tensors.items()})


def _float(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor


def _record(path: Path) -> Mapping[str, Any]:
    try:
        record = json.loads(_text(path))
    except ValueError as error:
        raise ModelError(f"{path} is not JSON: {error}; fetch it again") from error
    if not isinstance(record, Mapping):
        raise ModelError(f"{path} must hold a JSON object, got {type(record).__name__}")
    return record


def _text(path: Path) -> str:
    _check_bytes(path)
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"{path} cannot be read: {error}; fetch it again") from error


def _check_bytes(path: Path) -> None:
    cap = _MAX_BYTES.get(path.name, _MAX_JSON_BYTES)
    if (size := path.stat().st_size) > cap:
        raise ModelError(f"{path} has {size} bytes, the limit is {cap}; use a smaller network")


def _some(names: Sequence[str]) -> str:
    return f"{list(names[:6])}" + (f" and {len(names) - 6} more" if len(names) > 6 else "")
