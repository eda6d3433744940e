"""Recipes on disk: TOML files with one `[[step]]` per technique, in order.

[[step]]
technique = "PruneChannels"
fraction = 0.5
"""

from __future__ import annotations

import dataclasses
import json
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from triptych.algorithm.technique import Technique
from triptych.errors import RecipeError


def load_recipe(path: str | Path) -> list[Technique]:
    """Read a recipe.  Raises RecipeError on unreadable files, unknown keys and wrong values."""
    try:
        record = tomllib.loads(Path(path).read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise RecipeError(f"cannot read the recipe {path}: {error}") from error
    if unknown := record.keys() - {"step"}:
        raise RecipeError(f"unknown keys {sorted(unknown)} in {path}; a recipe holds only [[step]] tables")
    steps = record.get("step", [])
    if not isinstance(steps, list) or not steps or not all(isinstance(step, Mapping) for step in steps):
        raise RecipeError(f"{path} holds no [[step]]; give at least one with `technique = …`")
    return [make_technique(step) for step in steps]


def make_technique(record: Mapping[str, Any]) -> Technique:
    """A technique by name from plain values, as in a recipe file.  Raises RecipeError."""
    from triptych.algorithm import TECHNIQUES

    knobs = dict(record)
    name = knobs.pop("technique", None)
    if not isinstance(name, str) or name not in TECHNIQUES:
        raise RecipeError(f"unknown technique {name!r}; known are {sorted(TECHNIQUES)}")
    cls = TECHNIQUES[name]
    known = {f.name for f in dataclasses.fields(cls)}
    if unknown := knobs.keys() - known:
        raise RecipeError(f"unknown knobs {sorted(unknown)} of {name}; known are {sorted(known)}")
    return cls(**{knob: _frozen(value) for knob, value in knobs.items()})


def dump_recipe(recipe: Sequence[Technique]) -> str:
    """The TOML text that `load_recipe` reads back to the same techniques; knobs at their defaults are left out."""
    return "\n".join(_step(technique) for technique in recipe)


def _step(technique: Technique) -> str:
    changed = [f for f in dataclasses.fields(technique) if getattr(technique, f.name) != f.default]
    lines = [f"{f.name} = {_toml(getattr(technique, f.name))}" for f in changed]
    return "\n".join(["[[step]]", f"technique = {json.dumps(type(technique).__name__)}", *lines, ""])


def _toml(value: Any) -> str:
    if isinstance(value, tuple) and value and all(_is_pair(item) for item in value):
        return "{ " + ", ".join(f"{json.dumps(key)} = {_toml(item)}" for key, item in value) + " }"
    if isinstance(value, tuple):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    return json.dumps(value)


def _is_pair(item: Any) -> bool:
    return isinstance(item, tuple) and len(item) == 2 and isinstance(item[0], str)


def _frozen(value: Any) -> Any:
    if isinstance(value, Mapping):
        return tuple(sorted((key, _frozen(item)) for key, item in value.items()))
    return tuple(_frozen(item) for item in value) if isinstance(value, list) else value
