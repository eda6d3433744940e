"""Options that several commands share, and how their text becomes values."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from triptych.errors import RecipeError


@Parameter(name="*")
@dataclass(frozen=True)
class DataOptions:
    """How to read the dataset."""

    target: str | None = None
    "Predict another target than the declared one; the target column where nothing is declared."
    task: Literal["retrieval"] | None = None
    "Find one modality by the other, in both directions, in place of predicting a target."
    pair: str | None = None
    "For retrieval: the query's and the target's modality, as image,title; the only two where left out."
    on_bad: Literal["error", "drop"] = "error"
    "What to do with a row that cannot be read: stop, or leave it out and count it."


DEFAULT_DATA = DataOptions()
Overrides = Annotated[dict[str, str] | None, Parameter(help="Training options, as --train.epochs 3 --train.lr 1e-3.")]


def read(data: str, options: DataOptions) -> Any:
    """Load the dataset that the command line names."""
    from triptych.data.read import load_data

    return load_data(
        data, target=options.target, task=options.task, pair=split_pair(options.pair), on_bad=options.on_bad
    )


def split_pair(text: str | None) -> tuple[str, ...] | None:
    """Names of two modalities from 'image,title'."""
    return None if text is None else tuple(part.strip() for part in text.split(","))


def name_candidates(candidates: Sequence[str]) -> dict[str, Path]:
    """Paths by name: what stands before '=', else the folder, with its parent where that is not enough."""
    if not candidates:
        raise RecipeError("nothing to measure: give at least one bundle or saved model")
    named: dict[str, Path] = {}
    for text in candidates:
        name, _, path = text.rpartition("=")
        folder = Path(path)
        if not name:
            name = folder.name or text
            name = f"{folder.resolve().parent.name}/{name}" if name in named else name
        if name in named:
            raise RecipeError(f"two candidates are called {name!r}; name them, as before={path}")
        named[name] = folder
    return named


def literals(overrides: Mapping[str, str] | None) -> dict[str, Any]:
    """Values as JSON reads them, else as text."""

    def value(text: str) -> Any:
        try:
            return json.loads(text)
        except ValueError:
            return {"True": True, "False": False, "None": None}.get(text, text)

    return {key: value(str(text)) for key, text in (overrides or {}).items()}


def config_file(path: Path) -> dict[str, Any]:
    """Options of a command from a TOML file.  Raises RecipeError where it cannot be read."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise RecipeError(f"cannot read the configuration {path}: {error}") from error
