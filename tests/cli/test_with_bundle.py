"""`predict`, `inspect` and `measure` on a real bundle and a real dataset folder."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.system import tiny

Run = Callable[..., Any]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write(tmp_path_factory.mktemp("bundle") / "colours")


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "picture.png"
    Image.fromarray(np.arange(16, dtype=np.uint8).reshape(4, 4) * 16).save(path)
    return path


def answer(picture: Path | None, *tokens: int) -> str:
    """What the network in numpy says."""
    inputs: dict[str, Any] = {"text": np.array([tokens], np.int64)} if tokens else {}
    if picture is not None:
        inputs["image"] = np.asarray(Image.open(picture))[None, ..., None]
    return tiny.SCHEMA.classes[int(tiny.expected(inputs).argmax())]


def test_one_row_is_answered_from_options_named_after_the_modalities(
    triptych: Run, bundle: Path, picture: Path
) -> None:
    ran = triptych("predict", bundle, "--image", picture, "--text", "what colour is it")
    assert ran.code == 0, ran.err
    assert ran.line["label"] == answer(picture, 2, 3, 4, 5)
    assert sum(ran.line["probabilities"].values()) == pytest.approx(1)
    assert ran.line["missing"] == []
    assert ran.line["label"] in ran.err


def test_a_missing_modality_is_a_normal_input(triptych: Run, bundle: Path) -> None:
    ran = triptych("predict", bundle, "--text", "what colour", "--json")
    assert ran.line["label"] == answer(None, 2, 3)
    assert ran.line["missing"] == ["image"]


def test_an_operating_point_can_be_named(triptych: Run, bundle: Path) -> None:
    assert triptych("predict", bundle, "--text", "what", "--point", "text").line["point"] == "text"
    assert triptych("predict", bundle, "--text", "what", "--point", "nonsense").line["type"] == "SchemaError"


@pytest.mark.parametrize(
    ("option", "value", "kind"),
    [
        ("--sound", "x.wav", "UnknownModality"),
        ("--image", "nowhere.png", "DecodeError"),
        ("--text", " ", "SchemaError"),
    ],
)
def test_wrong_inputs_are_named(triptych: Run, bundle: Path, option: str, value: str, kind: str) -> None:
    ran = triptych("predict", bundle, option, value)
    assert (ran.code, ran.line["type"]) == (2, kind)


def test_rows_of_a_file_are_answered_in_order(triptych: Run, bundle: Path, picture: Path, tmp_path: Path) -> None:
    rows = [{"id": "a", "text": "what colour"}, {"image": "picture.png"}, {"text": "is it", "image": None}]
    source, out = tmp_path / "rows.jsonl", tmp_path / "deep" / "predictions.jsonl"
    source.write_text("\n".join(json.dumps(row) for row in rows) + "\n\n")
    ran = triptych("predict", bundle, "--rows", source, "--out", out)
    assert ran.line == {"rows": 3, "out": str(out)}
    found = [json.loads(line) for line in out.read_text().splitlines()]
    assert [f["id"] for f in found] == ["a", "1", "2"]
    assert [f["label"] for f in found] == [answer(None, 2, 3), answer(picture), answer(None, 4, 5)]


def test_rows_of_a_table_are_answered(triptych: Run, bundle: Path, tmp_path: Path) -> None:
    source, out = tmp_path / "rows.csv", tmp_path / "predictions.jsonl"
    source.write_text("image,text\n,what colour\n,is it\n")
    ran = triptych("predict", bundle, "--rows", source, "--out", out)
    assert ran.code == 0, ran.err
    found = [json.loads(line)["label"] for line in out.read_text().splitlines()]
    assert found == [answer(None, 2, 3), answer(None, 4, 5)]


@pytest.mark.parametrize("text", ["not json", "[1]", '{"sound": 1}'])
def test_a_bad_line_is_named_and_nothing_is_left_behind(triptych: Run, bundle: Path, tmp_path: Path, text: str) -> None:
    source, out = tmp_path / "rows.jsonl", tmp_path / "predictions.jsonl"
    source.write_text('{"text": "what"}\n' + text)
    ran = triptych("predict", bundle, "--rows", source, "--out", out)
    assert (ran.code, ran.line["type"]) == (2, "DataError")
    assert "line 2" in ran.line["error"]
    assert not out.exists()


def test_inspect_verifies_a_bundle(triptych: Run, bundle: Path) -> None:
    ran = triptych("inspect", bundle)
    assert ran.code == 0, ran.err
    assert (ran.line["kind"], ran.line["verified"]) == ("bundle", True)
    assert [point["name"] for point in ran.line["points"]] == ["full", "stages", "text", "cascade"]
    assert ran.line["stages"]["fused"] == {"flops": 123}
    assert "tokenizer" not in json.dumps(ran.line["schema"])


def test_inspect_shows_what_each_modality_costs_and_is_worth(triptych: Run, tmp_path: Path) -> None:
    worth = {"shapley": 0.3, "shapley_interval": [0.2, 0.4], "worth": 0.25, "worth_interval": [0.15, 0.35]}
    parts = {"image": {"p50_s": 0.003, **worth}, "text": {"p50_s": 0.005}, "decide": {"p50_s": 0.002}}
    lean = {"metric": "accuracy", "quality": 0.9, "parts": parts, "subsets": {"": 0.4, "image": 0.7}}
    ran = triptych("inspect", tiny.write(tmp_path / "told", reports={"reference": {"quality": 0.9}, "lean": lean}))
    assert ran.code == 0, ran.err
    image, text = ran.line["ledger"]
    assert (image["name"], image["share"], image["shapley"], image["alone"]) == ("image", 0.3, 0.3, 0.7)
    assert "worth" not in text
    assert ran.line["advice"][1].startswith("image costs 30 % of the time and earns 30.0 ± 10.0 points")
    assert "lost without it" in ran.err
    facts = {"text.encode": {"flops": 6, "weight_bytes": 128}, "decide": {"flops": 2, "weight_bytes": 96}}
    ran = triptych("inspect", tiny.write(tmp_path / "untold", reports={}, stages=facts))
    assert ran.line["ledger"] == [
        {
            "name": "text",
            "flops": 6,
            "size_bytes": 128,
            "share": 0.75,
            "share_of": "FLOPs",
            "energy_share": 0.75,
            "energy_source": "estimated: its share of the stages' FLOPs; joules not measured",
        }
    ]
    odd = triptych("inspect", tiny.write(tmp_path / "odd", reports={"lean": {"parts": {"image": {"worth": "much"}}}}))
    assert odd.line["type"] == "MeasureError"


def test_inspect_reports_damage(triptych: Run, tmp_path: Path) -> None:
    folder = tiny.write(tmp_path / "colours")
    card = folder / "MODEL_CARD.md"
    card.write_text(card.read_text().replace("colours", "c0lours"))
    assert triptych("inspect", folder).line["type"] == "BundleError"


def test_predict_and_inspect_never_load_torch(bundle: Path) -> None:
    for command in (["predict", str(bundle), "--text", "what colour"], ["inspect", str(bundle)]):
        code = f"import sys; from triptych.cli import main; print(main({command}), 'torch' in sys.modules)"
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert run.stdout.splitlines()[-1] == "0 False"


def test_inspect_shows_a_dataset(triptych: Run, tiny_dataset: Path) -> None:
    ran = triptych("inspect", tiny_dataset)
    assert ran.line["kind"] == "dataset"
    assert {name: split["rows"] for name, split in ran.line["splits"].items()} == {
        "train": 48,
        "validation": 16,
        "test": 16,
    }


def test_init_writes_what_inspect_reads(triptych: Run, tmp_path: Path) -> None:
    table = tmp_path / "notes.csv"
    lines = [f"a note number {i} of the day,{i / 7},{'yes' if i % 2 else 'no'}" for i in range(60)]
    table.write_text("\n".join(["note,height,label", *lines]) + "\n")
    ran = triptych("init", table, "--target", "label")
    assert ran.code == 0, ran.err
    assert ran.line["path"] == str(tmp_path / "dataset.toml")
    seen = triptych("inspect", table).line["schema"]
    assert [m["kind"] for m in seen["modalities"]] == ["text", "table"]
    assert triptych("init", table).line["type"] == "DataError"  # never overwrites


def test_a_saved_model_is_inspected_part_by_part(triptych: Run, tiny_data: Any, tmp_path: Path) -> None:
    from triptych import build, save_model

    sizes = {"dim": 16, "depth": 1, "heads": 2, "hidden": 16, "head_hidden": 16}
    folder = save_model(build("late_fusion", tiny_data.schema.only("text", "table"), **sizes), tmp_path / "model")
    ran = triptych("inspect", folder)
    assert ran.code == 0, ran.err
    assert ran.line["kind"] == "model"
    assert sum(part["params"] for part in ran.line["parts"].values()) == ran.line["params"] > 0
