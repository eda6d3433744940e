"""Run the command line in this process and read its last line."""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import pytest

from triptych.cli import main


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str

    @property
    def line(self) -> dict[str, Any]:
        """The JSON line that every command ends with."""
        return dict(json.loads(self.out.splitlines()[-1]))


@pytest.fixture
def triptych(capsys: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    def run(*tokens: object) -> Ran:
        capsys.readouterr()
        code = main([str(token) for token in tokens])
        return Ran(code, *capsys.readouterr())

    return run


@pytest.fixture
def chain(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Stands in for the chain and the reading of data; returns the calls it got."""
    calls: list[dict[str, Any]] = []

    def fit_to_budget(data: Any, budget: Any, out: Any, **options: Any) -> dict[str, Any]:
        options["progress"]("training the reference")
        calls.append({"data": data, "budget": budget, "out": out, **options})
        return {"dataset": data, "quality": float("nan"), "bundle": out / "bundle"}

    module = ModuleType("triptych.search.chain")
    module.fit_to_budget = fit_to_budget  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "triptych.search.chain", module)
    monkeypatch.setattr("triptych.cli.read", lambda data, reading: data)
    return calls
