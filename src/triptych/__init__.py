"""Triptych makes multimodal models small and fast, and proves it."""

import sys
from importlib import import_module
from types import ModuleType
from typing import Any

_HOME = {
    "AdaptTokens": "algorithm",
    "Batch": "tokens",
    "Budget": "search.budget",
    "Bundle": "system.runtime",
    "Distill": "algorithm",
    "Finetune": "algorithm",
    "Index": "system.runtime",
    "Int8": "algorithm",
    "Int8Weights": "algorithm",
    "KeepTokens": "algorithm",
    "MergeTokens": "algorithm",
    "Modality": "schema",
    "Multimodal": "model",
    "PruneChannels": "algorithm",
    "PruneHeads": "algorithm",
    "PruneLayers": "algorithm",
    "PruneWidth": "algorithm",
    "Report": "measure.report",
    "Schema": "schema",
    "Student": "algorithm",
    "Technique": "algorithm",
    "Tokens": "tokens",
    "TrainConfig": "train",
    "build": "model",
    "compress": "algorithm",
    "export": "system.bundle.export",
    "fit": "train",
    "load_data": "data.read",
    "load_model": "model",
    "measure": "measure",
    "save_model": "model",
    "search": "search.search",
}

__all__ = sorted(_HOME)  # noqa: PLE0605 (one table, so that the list cannot drift from it)


class _Package(ModuleType):
    """Keeps `triptych.measure` and `triptych.search` the verbs, although packages of the same names exist."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _HOME and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    """Load a public name on first use, so that importing the package loads neither torch nor a runtime."""
    if name not in _HOME:
        raise AttributeError(f"module 'triptych' has no attribute {name!r}; it has {__all__}")
    value = getattr(import_module(f"triptych.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return list(__all__)
