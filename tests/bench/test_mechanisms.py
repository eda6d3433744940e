"""The table of mechanisms names what is there, all of it, and says what was measured."""

import ast
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "bench"))

import mechanisms_page  # noqa: E402

ROWS = mechanisms_page.rows()
RESULTS = ROOT / "docs" / "results"


def test_the_page_equals_the_table_and_the_measurements() -> None:
    page = mechanisms_page.page(ROWS, mechanisms_page.load(RESULTS))
    assert (ROOT / "docs" / "mechanisms.md").read_text() == page, "run: python bench/mechanisms_page.py"


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["member"])
def test_every_file_and_test_named_is_there(row: dict[str, Any]) -> None:
    assert (ROOT / row["file"]).is_file()
    path, _, name = row["test"].partition("::")
    tests = {node.name for node in ast.parse((ROOT / path).read_text()).body if isinstance(node, ast.FunctionDef)}
    assert name in tests


@pytest.mark.parametrize("registry", mechanisms_page.FAMILIES)
def test_every_member_of_a_family_has_its_row_and_file(registry: str) -> None:
    members = getattr(import_module(mechanisms_page.FAMILIES[registry].module), registry)
    named = {row["member"].partition(".")[2]: row["file"] for row in ROWS if row["member"].startswith(f"{registry}.")}
    assert sorted(named) == sorted(members)
    for name, file in named.items():
        module = sys.modules[members[name].__module__].__file__
        assert module is not None
        assert Path(module).parts[-3:] == Path(file).parts[-3:]


def test_no_member_has_two_rows() -> None:
    members = [row["member"] for row in ROWS]
    assert len(members) == len(set(members))


def test_mixers_are_told_against_attention() -> None:
    def grown(overtakes: int | None, seconds: float | None = 1.0) -> dict[str, Any]:
        return {"onnxruntime_growth": {"seconds": seconds, "bytes": 1.0, "overtakes": overtakes}}

    results = {"mixers": {"mixers": {"linear": grown(512), "hashed": grown(None), "attention": grown(None, 2.0)}}}
    assert mechanisms_page.mixer_effect("linear", results) == (
        "faster than attention from 512 tokens; seconds grow as tokens^1.00"
    )
    assert mechanisms_page.mixer_effect("hashed", results) == (
        "never faster than attention; seconds grow as tokens^1.00"
    )
    assert mechanisms_page.mixer_effect("attention", results) == "the control; seconds grow as tokens^2.00"
    assert mechanisms_page.mixer_effect("window", results) is None
    assert mechanisms_page.mixer_effect("linear", {}) is None


def test_fusions_are_told_against_late_fusion() -> None:
    def measured(quality: float, p50_s: float) -> dict[str, Any]:
        return {"quality": [quality, quality], "p50_s": p50_s}

    one = {"metric": "accuracy", "fusions": {"late": measured(0.7, 1e-4), "cross": measured(0.9, 4e-4)}}
    two = {"metric": "mae", "fusions": {"late": measured(0.7, 1e-4), "cross": measured(0.9, 1e-4)}}
    results = {"fusion": {"sets": {"one": one, "two": two}}}
    assert mechanisms_page.fusion_effect("cross", results) == (
        "keeps up on 1 of 2 sets; mean above late fusion's on 1 of 2, at 2.00 times its seconds"
    )
    assert mechanisms_page.fusion_effect("late", results) == "keeps up on 1 of 2 sets"
    assert mechanisms_page.fusion_effect("tensor", results) is None


def test_adapters_are_told_against_training_everything() -> None:
    rows = {"lora": {"quality": [0.8, 0.9], "share": 0.012}, "full": {"quality": [0.9]}, "prompt": {"error": "no"}}
    results = {"adapters": {"sets": {"fashion": {"rows": rows}}}}
    assert mechanisms_page.adapter_effect("lora", results) == (
        "fashion: 0.850 with 1.2% of the numbers trained; against 0.900 with all of them"
    )
    assert mechanisms_page.adapter_effect("prompt", results) is None
    assert mechanisms_page.adapter_effect("lora", {}) is None


def test_a_router_is_told_by_its_layer_s_seconds() -> None:
    layer = {"router": "top_k", "experts": 8, "active": 1, "pytorch": {"ratio": 2.3}, "onnxruntime": {"ratio": 1.25}}
    results = {"experts": {"sections": {"by router": [layer]}}}
    told = mechanisms_page.router_effect("top_k", results)
    assert told == (
        "8 experts, top-1: 1.25 times the seconds of a dense block of one expert's size in the exported graph, 2.30 in"
        " PyTorch"
    )
    assert mechanisms_page.channel_effect("experts", results) == told
    assert mechanisms_page.channel_effect("mlp", results) is None
    assert mechanisms_page.router_effect("laplace", results) is None
    assert mechanisms_page.router_effect("top_k", {}) is None


def test_backbones_are_told_against_fresh_weights() -> None:
    ways = {"frozen": {"0": {"test": 0.8}, "1": {"test": 0.9}}, "fresh": {"0": {"test": 0.5}}}
    results = {"backbones": {"sets": {"fashion": {"families": {"image": "efficientnet"}, "ways": ways}}}}
    told = "fashion: frozen 0.850; against 0.500 from fresh weights"
    assert mechanisms_page.backbone_effect("efficientnet", results) == told
    assert mechanisms_page.backbone_effect("vit", results) is None
    del ways["fresh"]
    assert mechanisms_page.backbone_effect("efficientnet", results) is None


def test_a_row_may_name_two_figures_of_any_result() -> None:
    asked = {"file": "codes.json", "value": "a.b", "control": "a.c", "unit": "dB", "what": "noise"}
    family = mechanisms_page.FAMILIES["STEMS"]
    row = {"member": "STEMS.image", "effect": asked}
    assert mechanisms_page.effect(row, family, {"codes": {"a": {"b": 12.0, "c": 9.5}}}) == "noise: 12 dB against 9.5"
    assert mechanisms_page.effect(row, family, {}) == mechanisms_page.NOT_MEASURED
    assert mechanisms_page.effect({"member": "STEMS.image"}, family, {}) == mechanisms_page.NOT_MEASURED
    told = {"member": "STEMS.image", "unmeasured": "no data"}
    assert mechanisms_page.effect(told, family, {}) == "no data"
    assert (
        mechanisms_page.effect({**told, "effect": asked}, family, {"codes": {"a": {"b": 12.0, "c": 9.5}}}) != "no data"
    )
