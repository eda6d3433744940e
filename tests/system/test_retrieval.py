"""A retrieval bundle: each side embedded alone as the network does, indexed, searched and measured, without torch."""

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.cli.conftest import triptych  # noqa: F401 (a fixture)
from tests.system import tiny
from tests.train.small import SIZES
from triptych.errors import BundleError, DataError, SchemaError, UnknownModality
from triptych.model import build
from triptych.system.bundle.export import export
from triptych.system.runtime import Bundle, Index, Manifest
from triptych.train.evaluate import predict

Run = Callable[..., Any]
WIDTH = 12


@pytest.fixture(scope="module")
def model(tiny_pairs_data: Any) -> Any:
    torch.manual_seed(0)
    network = build("dual_encoder", tiny_pairs_data.schema, **{**SIZES, "embedding": WIDTH}).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return network


@pytest.fixture(scope="module")
def folder(model: Any, tiny_pairs_data: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(model, tmp_path_factory.mktemp("pairs") / "bundle", tiny_pairs_data)


@pytest.fixture(scope="module")
def bundle(folder: Path) -> Bundle:
    return Bundle.load(folder, check_golden=True)


@pytest.fixture(scope="module")
def vectors(model: Any, tiny_pairs_data: Any) -> dict[str, np.ndarray]:
    """What the network gives for the test split, by side."""
    outputs = predict(model, tiny_pairs_data.test)
    return dict(zip(tiny_pairs_data.schema.pair, np.split(outputs, 2, axis=1), strict=True))


@pytest.mark.parametrize("name", ["photo", "title"])
def test_either_side_is_embedded_as_the_network_does(
    name: str, bundle: Bundle, vectors: dict[str, np.ndarray], tiny_pairs_data: Any
) -> None:
    test = tiny_pairs_data.test
    found = bundle.embed_many([{name: test.raw(row)[name]} for row in range(len(test))], batch_size=5)
    assert found.shape == (16, WIDTH)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, vectors[name], atol=1e-5)
    np.testing.assert_allclose(bundle.embed(**{name: test.raw(3)[name]}), vectors[name][3], atol=1e-5)


def test_only_the_asked_sides_graphs_are_opened(folder: Path) -> None:
    fresh = Bundle.load(folder)
    fresh.embed(title="red bar left")
    assert fresh.stages.opened == {"title.encode", "title.exit"}


def test_sides_may_be_mixed_and_come_back_in_order(
    bundle: Bundle, vectors: dict[str, np.ndarray], tiny_pairs_data: Any
) -> None:
    raw = [tiny_pairs_data.test.raw(row) for row in range(4)]
    names = ["photo", "title", "title", "photo"]
    found = bundle.embed_many([{name: row[name]} for name, row in zip(names, raw, strict=True)])
    np.testing.assert_allclose(found, [vectors[name][i] for i, name in enumerate(names)], atol=1e-5)
    assert bundle.embed_many([]).shape == (0, WIDTH)


def test_predict_gives_the_sides_that_a_row_has(bundle: Bundle, tiny_pairs_data: Any) -> None:
    row = tiny_pairs_data.test.raw(0)
    both, one = bundle.predict_many([row, {"title": row["title"]}])
    assert set(both.embeddings) == {"photo", "title"}
    assert set(one.embeddings) == {"title"}
    assert one.missing == ("photo",)
    np.testing.assert_allclose(one.embeddings["title"], both.embeddings["title"], atol=1e-5)
    assert (both.label, both.value, both.probabilities) == (None, None, {})


def test_wrong_questions_are_named(bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(SchemaError, match="one modality at a time"):
        bundle.embed(title="a", photo=np.zeros((16, 16, 3), np.uint8))
    with pytest.raises(SchemaError, match="every modality is missing"):
        bundle.embed(title=" ")
    with pytest.raises(UnknownModality):
        bundle.embed(sound="x.wav")
    with pytest.raises(SchemaError, match="batch_size"):
        bundle.embed_many([], batch_size=0)
    with pytest.raises(SchemaError, match="use predict"):
        Bundle.load(tiny.write(tmp_path / "colours")).embed(text="what")


def test_a_manifest_that_cannot_embed_is_refused(bundle: Bundle) -> None:
    manifest, wide = bundle.manifest, bundle.manifest.stages["decide"]
    without = {name: stage for name, stage in manifest.stages.items() if name != "title.exit"}
    with pytest.raises(BundleError, match=r"missing are the graphs \['title.exit'\]"):
        dataclasses.replace(manifest, stages=without)
    for shape in ((None, WIDTH), (None, None), (None,)):
        output = {"output": dataclasses.replace(wide.outputs["output"], shape=shape)}
        stages = {**manifest.stages, "decide": dataclasses.replace(wide, outputs=output)}
        with pytest.raises(BundleError, match="embeddings of one known width"):
            dataclasses.replace(manifest, stages=stages)
    assert Manifest.from_json(manifest.to_json()) == manifest


def test_the_card_says_what_it_is_for(folder: Path) -> None:
    card = (folder / "MODEL_CARD.md").read_text()
    assert "Find `title` by `photo`, and the other way round" in card
    assert "must not be compared" in card


# ---- the command line


def test_index_and_search_from_the_command_line(
    triptych: Run,
    folder: Path,
    vectors: dict[str, np.ndarray],
    tiny_pairs: Path,
    tiny_pairs_data: Any,
    tmp_path: Path,
) -> None:
    index = tmp_path / "deep" / "titles.safetensors"
    ran = triptych("index", folder, "--data", tiny_pairs, "--split", "test", "--out", index)
    assert ran.code == 0, ran.err
    assert ran.line == {"index": str(index), "modality": "title", "rows": 16, "embedding": WIDTH}
    np.testing.assert_allclose(Index.load(index).vectors, vectors["title"], atol=1e-5)

    picture = tmp_path / "photo.png"
    picture.write_bytes(tiny_pairs_data.test.raw(2)["photo"]["bytes"])
    ran = triptych("predict", folder, "--photo", picture, "--index", index, "--k", 3)
    assert ran.code == 0, ran.err
    best = np.argsort(-(vectors["title"] @ vectors["photo"][2]), kind="stable")[:3]
    assert [match["id"] for match in ran.line["matches"]] == [f"test-{row}" for row in best]
    assert (ran.line["modality"], ran.line["searched"]) == ("photo", "title")
    assert ran.line["matches"][0]["id"] in ran.err

    out = tmp_path / "found.jsonl"
    ran = triptych("predict", folder, "--data", tiny_pairs, "--index", index, "--out", out)
    assert ran.code == 0, ran.err
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line["id"] for line in lines] == [f"test-{row}" for row in range(16)]
    assert {(line["modality"], len(line["matches"])) for line in lines} == {("photo", 10)}


def test_a_csv_of_one_side_can_be_indexed(triptych: Run, folder: Path, bundle: Bundle, tmp_path: Path) -> None:  # noqa: F811
    rows, index = tmp_path / "titles.csv", tmp_path / "titles.safetensors"
    rows.write_text("id,title,photo\na,red bar left,\nb,blue bar right,\n")
    ran = triptych("index", folder, "--rows", rows, "--modality", "title", "--out", index)
    assert ran.code == 0, ran.err
    ran = triptych("predict", folder, "--title", "blue bar right", "--index", index)
    assert ran.line["matches"][0] == {"id": "b", "score": pytest.approx(1, abs=1e-5)}


def test_an_answer_without_an_index_is_the_embedding(triptych: Run, folder: Path, bundle: Bundle) -> None:  # noqa: F811
    ran = triptych("predict", folder, "--title", "red bar left")
    assert ran.code == 0, ran.err
    np.testing.assert_allclose(ran.line["embeddings"]["title"], bundle.embed(title="red bar left"), atol=1e-5)
    assert "12 numbers" in ran.err


def test_wrong_searches_are_named(triptych: Run, folder: Path, tiny_pairs: Path, tmp_path: Path) -> None:  # noqa: F811
    foreign, plain = tmp_path / "foreign.safetensors", tmp_path / "rows.csv"
    index = Index(WIDTH, modality="title", space="another")
    index.save(foreign)
    assert triptych("predict", folder, "--title", "a", "--index", foreign).line["type"] == "DataError"
    assert "made the index" in triptych("predict", folder, "--title", "a", "--index", foreign).err
    assert triptych("predict", folder, "--title", "a", "--k", 3).line["type"] == "RecipeError"
    assert triptych("predict", folder, "--title", "a", "--index", foreign, "--point", "x").line["type"] == "RecipeError"
    assert triptych("index", folder, "--out", foreign).line["type"] == "RecipeError"
    plain.write_text("title,photo\n,\n")
    assert triptych("index", folder, "--rows", plain, "--out", foreign).code == 2
    other = tiny.write(tmp_path / "colours")
    assert triptych("index", other, "--data", tiny_pairs, "--out", foreign).line["type"] == "DataError"


def test_inspect_tells_of_the_pair(triptych: Run, folder: Path, tiny_pairs: Path) -> None:  # noqa: F811
    ran = triptych("inspect", folder)
    assert ran.line["schema"]["pair"] == ["photo", "title"]
    assert "retrieval between photo and title, judged by recall at 1" in ran.err
    assert triptych("inspect", tiny_pairs).line["schema"]["task"] == "retrieval"


def test_embedding_and_searching_never_load_torch(folder: Path, tmp_path: Path) -> None:
    index = tmp_path / "titles.safetensors"
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"id": "a", "title": "red bar left"}\n')
    commands = [
        ["index", str(folder), "--rows", str(rows), "--out", str(index)],
        ["predict", str(folder), "--title", "red bar", "--index", str(index)],
    ]
    code = f"import sys; from triptych.cli import main; print([main(c) for c in {commands}], 'torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines()[-1] == "[0, 0] False"


def test_an_index_of_another_width_is_refused(bundle: Bundle) -> None:
    with pytest.raises(DataError, match="shape"):
        Index(WIDTH + 1).search(bundle.embed(title="red"))


@pytest.mark.slow
def test_it_is_measured_beside_its_network(folder: Path, model: Any, tiny_pairs_data: Any) -> None:
    from triptych.measure import Report, measure
    from triptych.measure.quality import details, quality

    found = measure({"network": model, "bundle": folder}, tiny_pairs_data, repeat=4, rounds=2, warmup=1)
    outputs = predict(model, tiny_pairs_data.test).astype(float)
    targets, schema = tiny_pairs_data.test.targets, tiny_pairs_data.schema
    for report in found.values():
        assert report.quality == quality(outputs, targets, schema)
        assert report.details == details(outputs, targets, schema)
        assert report.parts["photo"].worth is None
        assert report.parts["photo"].p50_s is not None
        assert Report.from_dict(report.to_dict()) == report
    assert found["bundle"].loyalty == 1
    assert found["bundle"].params == found["network"].params
