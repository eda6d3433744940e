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


def reference_recipe() -> tuple[dict[str, Any], dict[str, Any]]:
    """Shape (`[build]`) and training options (`[train]`) of the reference."""
    record = tomllib.loads(recipe_file("reference").read_text())
    return record["build"], record["train"]
