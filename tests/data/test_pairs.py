"""Datasets for retrieval: which two modalities, which rows, and which values are equal."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tests.conftest import RETRIEVAL, as_table, pair_rows, png, write_dataset
from triptych.data.infer import write_dataset_toml
from triptych.data.loader import batch_of
from triptych.data.read import load_data, load_rows
from triptych.errors import DataError, RecipeError, SchemaError
from triptych.schema import Schema
from triptych.train.augment import RePair


def csv(folder: Path, rows: int = 12) -> Path:
    """Photos and titles in a CSV; nothing to predict, and one column that is no input."""
    for number in range(rows):
        (folder / f"{number}.png").write_bytes(png(np.full((8, 8, 3), number * 9, np.uint8)))
    lines = [f"{number}.png,a grey square no {number}" for number in range(rows)]
    path = folder / "squares.csv"
    path.write_text("\n".join(["photo,title", *lines]) + "\n")
    return path


def test_a_declared_retrieval_has_a_pair_and_no_target(tiny_pairs_data: Any) -> None:
    schema = tiny_pairs_data.schema
    assert (schema.task, schema.pair, schema.target) == ("retrieval", ("photo", "title"), "")
    assert schema.metric == "recall_at_1"
    assert schema.outputs == 0
    assert Schema.from_dict(schema.to_dict()) == schema
    assert tiny_pairs_data.train.targets.shape == (48, 2)


def test_any_dataset_can_be_read_for_retrieval(tiny_dataset: Path) -> None:
    data = load_data(tiny_dataset, task="retrieval", pair=("text", "image"), on_bad="drop")
    assert data.schema.pair == ("text", "image")
    assert set(data.schema.names) == {"text", "image"}
    assert data.train.dropped["half a pair"] == 3
    assert load_data(tiny_dataset, pair=("text", "image"), on_bad="drop").schema == data.schema


def test_a_csv_needs_no_target(tmp_path: Path) -> None:
    path = csv(tmp_path)
    data = load_data(path, task="retrieval")
    assert data.schema.pair == ("photo", "title")
    assert sum(len(split) for split in data.splits.values()) == 12
    batch = batch_of(data.train, range(3))
    assert batch.target is not None
    assert batch.target.shape == (3, 2)


def test_what_init_writes_is_read_back(tmp_path: Path) -> None:
    path = csv(tmp_path)
    toml, _ = write_dataset_toml(path, task="retrieval", pair=("title", "photo"))
    assert "[target]" not in toml.read_text()
    assert load_data(path).schema.pair == ("title", "photo")


def test_equal_values_have_equal_numbers(tmp_path: Path) -> None:
    rows = pair_rows("train", 10)
    rows["photo"][3] = rows["photo"][5]
    rows["title"][4] = f"  {str(rows['title'][2]).title()} "
    data = load_data(
        write_dataset(
            tmp_path, RETRIEVAL, {"train": as_table(rows), "validation": as_table(rows | {"id": list("abcdefghij")})}
        )
    )
    photo, title = data.train.targets.T
    assert photo[3] == photo[5]
    assert len(set(photo.tolist())) == 9
    assert title[4] == title[2]
    assert title[9] == title[0]
    assert len(set(title.tolist())) == 8


def test_a_row_without_a_side_is_an_error_or_dropped(tmp_path: Path) -> None:
    rows = pair_rows("train", 10)
    rows["title"][6] = None
    folder = write_dataset(tmp_path, RETRIEVAL, {"train": as_table(rows)})
    with pytest.raises(DataError, match=r"row 6.*side of the pair is missing"):
        load_data(folder)
    assert load_data(folder, on_bad="drop").train.dropped["half a pair"] == 1


def test_rows_to_search_with_need_one_side_only(tmp_path: Path, tiny_pairs_data: Any) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("photo,title\n,red bar left\n,red bar left\n")
    part = load_rows(path, tiny_pairs_data.schema)
    assert part.targets.tolist() == [[-1, 0], [-1, 0]]


@pytest.mark.parametrize("pair", [("photo",), ("photo", "photo"), ("photo", "sound"), ("photo", "title", "title")])
def test_a_pair_is_two_different_modalities(tiny_pairs: Path, pair: tuple[str, ...]) -> None:
    with pytest.raises(DataError, match="two different modalities"):
        load_data(tiny_pairs, pair=pair)


def test_which_two_of_many_must_be_said(tiny_dataset: Path) -> None:
    with pytest.raises(DataError, match="needs a pair"):
        load_data(tiny_dataset, task="retrieval")


def test_targets_and_pairs_exclude_each_other(tiny_dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="retrieval has no target"):
        load_data(tiny_dataset, target="loud", pair=("text", "image"))
    with pytest.raises(DataError, match="only retrieval has a pair"):
        load_data(tiny_dataset, task="classification", pair=("text", "image"))
    with pytest.raises(DataError, match="declared for classification"):
        load_data(tiny_dataset, task="regression")


def test_a_schema_checks_its_pair(tiny_pairs_data: Any, tiny_data: Any) -> None:
    with pytest.raises(SchemaError, match="two modalities"):
        tiny_pairs_data.only("photo")
    with pytest.raises(SchemaError, match="only retrieval has a pair"):
        Schema("x", tiny_data.schema.modalities, "y", "regression", "mae", pair=("text", "image"))
    with pytest.raises(SchemaError, match="the schema predicts"):
        tiny_pairs_data.test.with_schema(tiny_data.schema)


def test_pairs_are_not_drawn_anew(tiny_pairs_data: Any) -> None:
    with pytest.raises(RecipeError, match="class targets"):
        RePair()(batch_of(tiny_pairs_data.train, range(4)), None)  # type: ignore[arg-type]


def test_series_are_compared_by_their_numbers(tmp_path: Path) -> None:
    values = [[1.0, 2.0], [3.0], [1.0, 2.0], [4.0, 5.0]]
    table = pa.table({"title": ["a b", "c d", "e f", "g h"], "signal": values})
    data = load_data(table, task="retrieval", split=(0.5, 0.25, 0.25))
    numbers = {int(n): data[name].targets[i] for name in data.splits for i, n in enumerate(data[name].numbers)}
    signal = data.schema.pair.index("signal")
    assert numbers[0][signal] == numbers[2][signal]
    assert len({int(numbers[row][signal]) for row in range(4)}) == 3
