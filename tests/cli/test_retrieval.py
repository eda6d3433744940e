"""`index`, and `predict` with and without an index, on a retrieval bundle."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.system import tiny
from triptych.system.runtime import Bundle, Index

Run = Callable[..., Any]
WIDTH = 12


@pytest.fixture(scope="module")
def bundle(pairs_bundle: Path) -> Bundle:
    return Bundle.load(pairs_bundle)


def test_index_and_search_from_the_command_line(
    triptych: Run,
    pairs_bundle: Path,
    pairs_vectors: dict[str, np.ndarray],
    tiny_pairs: Path,
    tiny_pairs_data: Any,
    tmp_path: Path,
) -> None:
    index = tmp_path / "deep" / "titles.safetensors"
    ran = triptych("index", pairs_bundle, "--data", tiny_pairs, "--split", "test", "--out", index)
    assert ran.code == 0, ran.err
    assert ran.line == {"index": str(index), "modality": "title", "rows": 16, "embedding": WIDTH}
    np.testing.assert_allclose(Index.load(index).vectors, pairs_vectors["title"], atol=1e-5)

    picture = tmp_path / "photo.png"
    picture.write_bytes(tiny_pairs_data.test.raw(2)["photo"]["bytes"])
    ran = triptych("predict", pairs_bundle, "--photo", picture, "--index", index, "--k", 3)
    assert ran.code == 0, ran.err
    best = np.argsort(-(pairs_vectors["title"] @ pairs_vectors["photo"][2]), kind="stable")[:3]
    assert [match["id"] for match in ran.line["matches"]] == [f"test-{row}" for row in best]
    assert (ran.line["modality"], ran.line["searched"]) == ("photo", "title")
    assert ran.line["matches"][0]["id"] in ran.err

    out = tmp_path / "found.jsonl"
    ran = triptych("predict", pairs_bundle, "--data", tiny_pairs, "--index", index, "--out", out)
    assert ran.code == 0, ran.err
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line["id"] for line in lines] == [f"test-{row}" for row in range(16)]
    assert {(line["modality"], len(line["matches"])) for line in lines} == {("photo", 10)}


def test_a_csv_of_one_side_can_be_indexed(triptych: Run, pairs_bundle: Path, bundle: Bundle, tmp_path: Path) -> None:
    rows, index = tmp_path / "titles.csv", tmp_path / "titles.safetensors"
    rows.write_text("id,title,photo\na,red bar left,\nb,blue bar right,\n")
    ran = triptych("index", pairs_bundle, "--rows", rows, "--modality", "title", "--out", index)
    assert ran.code == 0, ran.err
    ran = triptych("predict", pairs_bundle, "--title", "blue bar right", "--index", index)
    assert ran.line["matches"][0] == {"id": "b", "score": pytest.approx(1, abs=1e-5)}


def test_an_answer_without_an_index_is_the_embedding(triptych: Run, pairs_bundle: Path, bundle: Bundle) -> None:
    ran = triptych("predict", pairs_bundle, "--title", "red bar left")
    assert ran.code == 0, ran.err
    np.testing.assert_allclose(ran.line["embeddings"]["title"], bundle.embed(title="red bar left"), atol=1e-5)
    assert "12 numbers" in ran.err


def test_wrong_searches_are_named(triptych: Run, pairs_bundle: Path, tiny_pairs: Path, tmp_path: Path) -> None:
    foreign, plain = tmp_path / "foreign.safetensors", tmp_path / "rows.csv"
    index = Index(WIDTH, modality="title", space="another")
    index.save(foreign)
    assert triptych("predict", pairs_bundle, "--title", "a", "--index", foreign).line["type"] == "DataError"
    assert "made the index" in triptych("predict", pairs_bundle, "--title", "a", "--index", foreign).err
    assert triptych("predict", pairs_bundle, "--title", "a", "--k", 3).line["type"] == "RecipeError"
    assert (
        triptych("predict", pairs_bundle, "--title", "a", "--index", foreign, "--point", "x").line["type"]
        == "RecipeError"
    )
    assert triptych("index", pairs_bundle, "--out", foreign).line["type"] == "RecipeError"
    plain.write_text("title,photo\n,\n")
    assert triptych("index", pairs_bundle, "--rows", plain, "--out", foreign).code == 2
    other = tiny.write(tmp_path / "colours")
    assert triptych("index", other, "--data", tiny_pairs, "--out", foreign).line["type"] == "DataError"
    assert "only a bundle for retrieval" in triptych("predict", other, "--text", "a", "--index", foreign).err


def test_inspect_tells_of_the_pair(triptych: Run, pairs_bundle: Path, tiny_pairs: Path) -> None:
    ran = triptych("inspect", pairs_bundle)
    assert ran.line["schema"]["pair"] == ["photo", "title"]
    assert "retrieval between photo and title, judged by recall at 1" in ran.err
    assert triptych("inspect", tiny_pairs).line["schema"]["task"] == "retrieval"


def test_embedding_and_searching_never_load_torch(pairs_bundle: Path, tmp_path: Path) -> None:
    index = tmp_path / "titles.safetensors"
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"id": "a", "title": "red bar left"}\n')
    commands = [
        ["index", str(pairs_bundle), "--rows", str(rows), "--out", str(index)],
        ["predict", str(pairs_bundle), "--title", "red bar", "--index", str(index)],
    ]
    code = f"import sys; from triptych.cli import main; print([main(c) for c in {commands}], 'torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines()[-1] == "[0, 0] False"
