"""The recipes that ship with Triptych."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from triptych.errors import RecipeError

_PLACES = (Path(__file__).parents[1] / "recipes", Path(__file__).parents[3] / "recipes")  # installed, or a checkout


def recipe_file(name: str) -> Path:
    """Where a shipped recipe lies.  Raises RecipeError."""
    for folder in _PLACES:
        if (path := folder / f"{name}.toml").is_file():
            return path
    raise RecipeError(f"no recipe {name!r} in {' or '.join(str(p) for p in _PLACES)}")


def reference_recipe(dataset: str = "", task: str = "classification") -> tuple[dict[str, Any], dict[str, Any]]:
    """Shape (`[build]`) and training options (`[train]`) of the reference.

    The shape is the same for every dataset; a recipe of the dataset's own name, with '_' for '-', may change training
    options.  Retrieval has a recipe of its own for all datasets.
    """
    if task == "retrieval":
        record = _read(recipe_file("retrieval"))
        return record["build"], record["train"]
    record, own = _read(recipe_file("reference")), dataset.replace("-", "_")
    try:
        special = _read(recipe_file(own)).get("train", {}) if own.isidentifier() else {}
    except RecipeError:
        special = {}
    return record["build"], {**record["train"], **special}


def _read(path: Path) -> dict[str, Any]:
    return tomllib.loads(path.read_text(encoding="utf-8"))
