"""What can be measured, and how each is started: a bundle, a saved model, a network in memory, or a peer."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from triptych.errors import MeasureError
from triptych.schema import Schema

if TYPE_CHECKING:
    from triptych.model import Multimodal

_MODEL_FILES = ("model.json", "model.safetensors")


@dataclass(frozen=True, slots=True)
class Peer:
    """An outside engine in an environment of its own, speaking the protocol in `triptych.measure.worker`.

    command: program and arguments; size_bytes: what must be shipped to run it, None if that is not known
    """

    command: tuple[str, ...]
    size_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Launch:
    """How to start a candidate's worker, and what is known without starting it.

    schema: what the candidate reads; None means the dataset's own
    """

    command: tuple[str, ...]
    schema: Schema | None = None
    size_bytes: int | None = None
    bundle_bytes: int | None = None


def launch(name: str, candidate: str | Path | Multimodal | Peer, scratch: Path) -> Launch:
    """Find out what a candidate is.  A network in memory is saved under `scratch` first.  Raises MeasureError."""
    if isinstance(candidate, Peer):
        return Launch(candidate.command, size_bytes=candidate.size_bytes)
    if not isinstance(candidate, str | Path):
        from triptych.model import save_model

        save_model(candidate, scratch)
        candidate = scratch
    folder = Path(candidate)
    if (folder / "manifest.json").is_file():
        return _bundle(folder)
    if (folder / "model.json").is_file():
        size = sum((folder / file).stat().st_size for file in _MODEL_FILES)
        return Launch(_worker("model", folder), _schema(folder / "model.json"), size_bytes=size)
    raise MeasureError(
        f"candidate {name!r}: {folder} is neither a bundle (manifest.json) nor a saved model (model.json); "
        "give a folder of one of these, a network, or a Peer"
    )


def _bundle(folder: Path) -> Launch:
    from triptych.system.runtime import Bundle

    bundle = Bundle.load(folder, verify=False)
    schema = replace(bundle.schema, modalities=tuple(bundle.modality(name) for name in bundle.schema.names))
    return Launch(_worker("bundle", folder), schema, size_bytes=bundle.size_bytes, bundle_bytes=bundle.bundle_bytes)


def _worker(kind: str, folder: Path) -> tuple[str, ...]:
    return (sys.executable, "-m", "triptych.measure.worker", kind, str(folder.resolve()))


def _schema(path: Path) -> Schema:
    try:
        record: Mapping[str, Any] = json.loads(path.read_text())
        return Schema.from_dict(record["schema"])
    except (ValueError, KeyError, TypeError) as error:
        raise MeasureError(f"{path} holds no readable schema: {error}") from error
