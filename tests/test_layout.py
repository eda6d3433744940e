"""The shape of the project: which way imports point, what importing costs, what source files may hold."""

import ast
import dataclasses
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import triptych
from triptych.data.limits import Limits

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "triptych"
FILES = sorted(SOURCE.rglob("*.py"))

# part -> the other parts it may import; the longest matching part rules
MAY_IMPORT = {
    "errors": (),
    "schema": ("errors",),
    "tokens": ("errors", "schema"),
    "select": ("errors", "tokens"),
    "data": ("errors", "schema", "tokens"),
    "model": ("errors", "schema", "tokens", "select", "data"),
    "train": ("errors", "schema", "tokens", "data", "model", "measure.quality"),
    "algorithm": ("errors", "schema", "tokens", "select", "data", "model", "train"),
    "measure": ("errors", "schema", "tokens", "data", "model", "system"),
    "system": (
        "errors",
        "schema",
        "tokens",
        "select",
        "data",
        "model",
        "measure.report",
        "measure.ledger",
        "measure.environment",
    ),
    "system.runtime": ("errors", "schema", "data.decode", "data.collate", "data.limits"),
    "search": ("errors", "schema", "tokens", "data", "model", "train", "algorithm", "measure", "system", "report"),
    "report": ("errors", "schema", "tokens", "data", "model", "train", "algorithm", "measure", "system"),
    "cli": ("",),
}
RUNTIME_LIBRARIES = {"numpy", "onnxruntime", "safetensors"}  # safetensors: golden examples, on request
FORBIDDEN_NAMES = {"NotImplementedError", "pickle", "cPickle", "cloudpickle", "dill", "shelve"}


def part_of(path: Path) -> str:
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def inside(name: str, part: str) -> bool:
    return not part or name == part or name.startswith(f"{part}.")


def rule_of(part: str) -> str:
    part = "cli" if part.startswith("cli") else part
    return max((rule for rule in MAY_IMPORT if inside(part, rule)), key=len, default="")


def walk(tree: ast.AST) -> Iterator[ast.AST]:
    """Every node but those under `if TYPE_CHECKING:`."""
    for node in ast.iter_child_nodes(tree):
        if not (isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"):
            yield node
            yield from walk(node)


def imports(path: Path) -> Iterator[str]:
    for node in walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            modules = {part_of(f) for f in FILES}
            prefix = (node.module or "").removeprefix("triptych").strip(".")
            for alias in node.names:
                deeper = f"{prefix}.{alias.name}".strip(".")
                is_module = (node.module or "").split(".")[0] == "triptych" and deeper in modules
                yield f"triptych.{deeper}" if is_module else node.module or ""


@pytest.mark.parametrize("path", FILES, ids=part_of)
def test_imports_point_one_way(path: Path) -> None:
    part = part_of(path)
    if not part:
        return
    rule = rule_of(part)
    assert rule, f"{part} belongs to no known part of the package"
    inner = [name.removeprefix("triptych.") for name in imports(path) if inside(name, "triptych")]
    allowed = (rule, *MAY_IMPORT[rule])
    wrong = [name for name in inner if not any(inside(name, one) for one in allowed)]
    assert not wrong, f"{part} may import {allowed}, not {wrong}"


@pytest.mark.parametrize("path", [f for f in FILES if inside(part_of(f), "system.runtime")], ids=part_of)
def test_the_runtime_needs_numpy_and_onnxruntime_only(path: Path) -> None:
    outside = {name.split(".")[0] for name in imports(path)} - {"triptych"} - sys.stdlib_module_names
    assert outside <= RUNTIME_LIBRARIES


def printed(code: str) -> str:
    """What a fresh interpreter prints."""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


@pytest.mark.parametrize("module", ["triptych", "triptych.system.runtime", "triptych.cli"])
def test_importing_loads_no_heavy_library(module: str) -> None:
    heavy = {"torch", "transformers", "pandas", "matplotlib", "pyarrow"}
    assert not printed(f"import sys, {module}; print(*sorted({heavy} & sys.modules.keys()))")


def test_public_names_are_sorted_true_and_few() -> None:
    assert triptych.__all__ == sorted(set(triptych.__all__))
    assert len(triptych.__all__) <= 40
    assert all(getattr(triptych, name) is not None for name in triptych.__all__)


@pytest.mark.parametrize("verb", ["measure", "search"])
def test_a_package_never_shadows_the_verb_of_its_name(verb: str) -> None:
    assert printed(f"import triptych, triptych.{verb}; print(callable(triptych.{verb}))") == "True"


def test_an_unknown_public_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Nonsense'"):
        _ = triptych.Nonsense


@pytest.mark.parametrize("path", FILES, ids=part_of)
def test_files_are_short_or_say_why(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= 400 or "\n# long because " in text


@pytest.mark.parametrize("path", FILES, ids=part_of)
def test_source_holds_no_stub_assert_or_pickle(path: Path) -> None:
    text = path.read_text()
    assert "TODO" not in text
    assert "FIXME" not in text
    for node in ast.walk(ast.parse(text)):
        assert not isinstance(node, ast.Assert), f"assert in line {node.lineno}"
        if isinstance(node, ast.Name):
            assert node.id not in FORBIDDEN_NAMES, f"{node.id} in line {node.lineno}"
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            assert (node.value.id, node.attr) != ("torch", "load"), f"torch.load in line {node.lineno}"
    assert not FORBIDDEN_NAMES & {name.split(".")[0] for name in imports(path)}


def test_the_published_limits_are_the_real_ones() -> None:
    limits = dataclasses.asdict(Limits())
    published = dict(
        re.findall(r"^\| `(max_\w+)` \| ([\d  ]+(?:MiB)?) \|", (ROOT / "SECURITY.md").read_text(), re.MULTILINE)
    )
    assert published.keys() == limits.keys()
    for name, text in published.items():
        scale = 1 << 20 if text.endswith("MiB") else 1
        assert int(re.sub(r"\D", "", text)) * scale == limits[name], name
