"""Folders, files and frames to datasets, and every kind of bad row."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.conftest import CLASSIFICATION, REGRESSION, as_table, classification_rows, clip, regression_rows
from tests.conftest import write_dataset as write
from triptych.data.read import load_data, load_rows
from triptych.errors import DataError, DecodeError, SchemaError

ROWS = 12


def rows_by_split(split: str = "train", **changes) -> dict[str, dict[str, list[object]]]:
    """Complete rows for three splits; `changes` replaces (row → value) in columns of one split."""
    every = {name: classification_rows(name, ROWS, missing=False) for name in ("train", "validation", "test")}
    for column, values in changes.items():
        for row, value in values.items():
            every[split][column][row] = value
    return every


def folder_of(tmp_path: Path, rows: dict[str, dict[str, list[object]]], toml: str = CLASSIFICATION) -> Path:
    return write(tmp_path / "data", toml, {name: as_table(columns) for name, columns in rows.items()})


def everything(data) -> None:
    for split in data.splits.values():
        for row in range(len(split)):
            split.example(row)


# --- what a good folder gives


def test_a_folder_has_three_splits(tiny_data):
    assert {name: len(split) for name, split in tiny_data.splits.items()} == {"train": 48, "validation": 16, "test": 16}
    assert tiny_data.name == "tiny"
    assert tiny_data.about["licence"] == "none, made up"
    assert tiny_data.train.ids[:2].tolist() == ["train-0", "train-1"]
    assert tiny_data.train.targets[:4].tolist() == [0, 1, 2, 0]
    assert tiny_data.train.target(2) == 2
    assert set(tiny_data.groups["test"]) == {"person0", "person1", "person2", "person3"}
    assert all(not split.dropped for split in tiny_data.splits.values())


def test_an_example_has_the_schema_shapes(tiny_data):
    example = tiny_data.train.example(0)
    assert {name: value.shape[1:] for name, value in example.items()} == {
        "image": (16, 3),
        "audio": (),
        "text": (),
        "series": (3,),
        "table": (),
    }
    assert example["audio"].dtype == np.float32
    assert len(example["audio"]) <= tiny_data.schema["audio"].max_samples


def test_a_missing_modality_is_none(tiny_data):
    lacking = [row for row in range(48) if any(v is None for v in tiny_data.train.example(row).values())]
    assert lacking == list(range(3, 48, 8))
    assert tiny_data.train.example(3)["image"] is None
    assert tiny_data.train.raw(3)["image"] is None
    assert tiny_data.train.raw(3)["text"]


def test_arrays_are_the_examples_padded(tiny_data):
    arrays = tiny_data.validation.arrays()
    for row in range(len(tiny_data.validation)):
        for name, value in tiny_data.validation.example(row).items():
            if value is not None:
                np.testing.assert_array_equal(arrays[name][row][: len(value)], value)


def test_a_subset_shares_rows_in_the_given_order(tiny_data):
    subset = tiny_data.train.subset([5, 2])
    assert subset.ids.tolist() == ["train-5", "train-2"]
    assert subset.targets.tolist() == [2, 2]
    np.testing.assert_array_equal(subset.example(1)["image"], tiny_data.train.example(2)["image"])
    with pytest.raises(DataError, match="rows 0 to 1, got 2"):
        subset.example(2)


def test_some_of_the_modalities(tiny_data):
    two = tiny_data.only("text", "table")
    assert two.schema.names == ("text", "table")
    assert set(two.test.example(0)) == {"text", "table"}


def test_another_schema_must_predict_the_same(tiny_data, tiny_regression_data):
    with pytest.raises(SchemaError, match="the schema predicts regression, the data holds"):
        tiny_data.train.with_schema(tiny_regression_data.schema)


def test_another_declared_target(tiny_dataset):
    data = load_data(tiny_dataset, target="loud")
    assert (data.schema.metric, data.schema.positive, data.schema.classes) == ("auroc", "yes", ("no", "yes"))
    assert data.train.targets[:3].tolist() == [0, 0, 1]
    with pytest.raises(DataError, match=r"declares no target 'height'; it has \['label', 'loud'\]"):
        load_data(tiny_dataset, target="height")


def test_the_fingerprint_follows_the_content(tmp_path, tiny_dataset):
    same = load_data(tiny_dataset).fingerprint
    assert same == load_data(shutil.copytree(tiny_dataset, tmp_path / "copy")).fingerprint
    changed = load_data(folder_of(tmp_path, rows_by_split())).fingerprint
    other = load_data(folder_of(tmp_path, rows_by_split(text={3: "other words"}))).fingerprint
    assert len({same, changed, other}) == 3


def test_regression_targets_are_values(tiny_regression_data):
    schema, targets = tiny_regression_data.schema, tiny_regression_data.train.targets
    assert targets.dtype == np.float32
    assert schema.center == pytest.approx(targets.mean(), abs=1e-5)
    assert schema.scale == pytest.approx(targets.std(), abs=1e-5)
    assert (schema.outputs, schema.range) == (1, (-3.0, 3.0))


def test_validation_is_carved_from_train_by_group(tmp_path):
    rows = {name: classification_rows(name, 60, missing=False) for name in ("train", "test")}
    rows["train"]["person"] = [f"p{number % 20}" for number in range(60)]
    data = load_data(folder_of(tmp_path, rows))
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 54, "validation": 6, "test": 60}
    assert not set(data.train.groups) & set(data.validation.groups)


# --- bad rows: one error, or dropped and counted

BAD_AT_LOADING = {
    "unknown class": ({"label": {4: "huge"}}, "column 'label': class 'huge' is not one of ['low', 'middle', 'high']"),
    "missing target": ({"label": {4: None}}, "column 'label': the target is missing or NaN; fill it in"),
    "duplicate id": ({"id": {4: "train-2"}}, "column 'id': train row 2 has the same id; make ids unique"),
    "no modality": (
        {name: {4: None} for name in ("picture", "audio", "text", "series", "table")},
        "column 'picture, audio, text, series, table': every modality is missing",
    ),
}
BAD_WHEN_DECODED = {
    "bad image": ({"picture": {4: {"bytes": b"\x89PNG\r\n\x1a\nbroken", "path": None}}}, "column 'picture': the PNG"),
    "bad audio": (
        {"audio": {4: {"bytes": clip(np.zeros(99, np.float32), 16000), "path": None}}},
        "column 'audio': the clip has 16000 Hz, expected 8000 Hz; resample it to 8000 Hz",
    ),
    "bad series": ({"series": {4: [[1.0, 2.0]]}}, "column 'series': expected (frames, 3) numbers, got (1, 2)"),
    "bad table": ({"table": {4: [1.0, 2.0]}}, "column 'table': expected (4,) numbers, got (2,)"),
}


@pytest.mark.parametrize("reason", [*BAD_AT_LOADING, *BAD_WHEN_DECODED])
def test_a_bad_row_is_one_error_that_names_it(tmp_path, reason):
    changes, message = {**BAD_AT_LOADING, **BAD_WHEN_DECODED}[reason]
    folder = folder_of(tmp_path, rows_by_split("test", **changes))
    if reason == "duplicate id":
        message = message.replace("train row 2", "train row 2")
    name = "train-2" if reason == "duplicate id" else "test-4"
    with pytest.raises(DataError, match=re.escape(f"test row 4 (id {name!r}), {message}")):
        everything(load_data(folder))


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("reason", [*BAD_AT_LOADING, *BAD_WHEN_DECODED])
def test_a_bad_row_is_dropped_and_counted(tmp_path, reason, split):
    changes, _ = {**BAD_AT_LOADING, **BAD_WHEN_DECODED}[reason]
    data = load_data(folder_of(tmp_path, rows_by_split(split, **changes)), on_bad="drop")
    everything(data)
    assert data[split].dropped == {reason: 1}
    assert len(data[split]) == ROWS - 1
    assert len(data.validation) == ROWS
    assert 4 not in data[split].numbers


def test_more_of_the_same_are_counted_in_the_error(tmp_path):
    folder = folder_of(tmp_path, rows_by_split(label={2: "x", 5: "y", 7: None}))
    with pytest.raises(DataError, match=r"row 7 .*on_bad='drop'$"):
        load_data(folder)
    with pytest.raises(DataError, match=r"train row 2 .*; rows like it: 2"):
        load_data(folder_of(tmp_path, rows_by_split(label={2: "x", 5: "y"})))


def test_decode_errors_keep_their_class(tmp_path):
    folder = folder_of(tmp_path, rows_by_split(**BAD_WHEN_DECODED["bad image"][0]))
    data = load_data(folder)
    data.train.example(3)
    with pytest.raises(DecodeError):
        data.train.example(4)


def test_a_nan_target(tmp_path):
    rows = {name: regression_rows(name, ROWS) for name in ("train", "validation", "test")}
    rows["train"]["score"][1] = float("nan")
    rows["train"]["score"][2] = float("inf")
    folder = folder_of(tmp_path, rows, REGRESSION)
    with pytest.raises(DataError, match=r"train row 1 \(id 'train-1'\), column 'score': the target is missing or NaN"):
        load_data(folder)
    data = load_data(folder, on_bad="drop")
    assert data.train.dropped == {"missing target": 1, "infinite target": 1}
    assert np.isfinite(data.train.targets).all()


def test_a_sample_rate_that_was_not_declared_is_measured_then_checked(tmp_path):
    toml = CLASSIFICATION.replace("sample_rate = 8000", "")
    other = {"bytes": clip(np.zeros(99, np.float32), 16000), "path": None}
    folder = folder_of(tmp_path, rows_by_split("test", audio={4: other}), toml)
    assert load_data(folder).schema["audio"].sample_rate == 8000
    assert load_data(folder, on_bad="drop").test.dropped == {"bad audio": 1}


# --- bad folders


def test_an_empty_split(tmp_path):
    rows = rows_by_split()
    folder = folder_of(tmp_path, rows)
    pq.write_table(as_table(rows["test"]).slice(0, 0), folder / "test.parquet")
    with pytest.raises(DataError, match="split 'test' is empty; add rows to it"):
        load_data(folder)


def test_a_split_that_is_empty_after_dropping(tmp_path):
    rows = rows_by_split("test", label=dict.fromkeys(range(ROWS), "huge"))
    with pytest.raises(DataError, match=f"split 'test' is empty after dropping {{'unknown class': {ROWS}}}"):
        load_data(folder_of(tmp_path, rows), on_bad="drop")


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ("audio", "test: column 'audio' of modality 'audio' is missing; the table has"),
        ("label", "test: the target column 'label' is missing"),
        ("person", "test: the group column 'person' is missing"),
        ("table", "test: column 'table' of modality 'table' is missing"),
    ],
)
def test_a_missing_column(tmp_path, column, message):
    rows = rows_by_split()
    folder = folder_of(tmp_path, rows)
    pq.write_table(as_table(rows["test"]).drop_columns(column), folder / "test.parquet")
    with pytest.raises(DataError, match=message):
        load_data(folder)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("channels = 3\nrate_hz", "channels = 2\nrate_hz", "'channel_names' has 3 names for 2 channels"),
        ("rate_hz = 50", "rate_hz = 'fast'", "'rate_hz' must be frames per second"),
        ("height = 16\nwidth = 16\nchannels = 3", "channels = 4", "an image has 1 or 3 channels, got 4"),
        ("sample_rate = 8000", "channels = 2", "a clip has 1 channel once it is loaded"),
        ('fields = ["a", "b", "c", "d"]', 'fields = "abcd"', "'fields' must be a list of names"),
        ('split = "random"', "group = 'person'", "'group' must be a table"),
        ('positive = "yes"', 'positive = "often"', "auroc needs 'positive'"),
        ('classes = ["no", "yes"]', "classes = 'no'", r"\[other_targets.loud\] 'classes' must be a list"),
        ("[group]", "[partition]\nshare = 3\n[group]", r"unknown keys \['share'\]"),
        ('kind = "text"', "kind = ['text']", "has kind"),
        ("[modalities.image]", "[modalities]\nsmell = 3\n[modalities.image]", "has kind 3"),
        ("[other_targets.loud]", "[other_targets]\nx = 3\n[other_targets.loud]", "'other_targets.x' must be a table"),
        ('"high"]\n\n[other', '"high"]\nrange = [1, "a"]\n\n[other', "'range' must be the smallest and the largest"),
        ("height = 16", "height = 16\ncolour = 3", r"unknown keys \['colour'\]"),
        ('kind = "text"', 'kind = "smell"', "has kind 'smell', expected one of"),
        ("sample_rate = 8000", "sampel_rate = 8000", r"unknown keys \['sampel_rate'\]; audio knows"),
        ('metric = "accuracy"', 'metric = "mae"', "metric 'mae' does not fit task 'classification'"),
        ('column = "label"', 'name = "label"', "declares no target 'column'"),
        ("[modalities.image]", "[modalities.1mage]", "must be an identifier"),
        ("height = 16", 'height = "16"', "'height' must be a whole number"),
        ("frames = 20", "frames = -1", "'frames' must be a whole number"),
        ("channels = 3\nrate_hz", "channels = 3\nscale = 3\nchannels = 3\nrate_hz", "not valid TOML"),
        ('"high"]\n\n[other', '"low"]\n\n[other', "at least two classes, each once"),
        ('classes = ["low", "middle", "high"]', "", "at least two classes, each once"),
    ],
)
def test_a_bad_declaration(tmp_path, old, new, message):
    assert old in CLASSIFICATION
    folder = folder_of(tmp_path, rows_by_split(), CLASSIFICATION.replace(old, new, 1))
    if "group" in new:
        text = (folder / "dataset.toml").read_text().replace('[group]\ncolumn = "person"\ndisjoint = false', "")
        (folder / "dataset.toml").write_text(text)
    with pytest.raises(DataError, match=message):
        load_data(folder, target="loud" if "positive" in new else None)


def test_a_damaged_parquet_file(tmp_path):
    folder = folder_of(tmp_path, rows_by_split())
    (folder / "test.parquet").write_bytes(b"PAR1 not at all")
    with pytest.raises(DataError, match=r"test\.parquet is not a readable parquet file"):
        load_data(folder)


def test_a_wrong_column_type(tmp_path):
    rows = rows_by_split()
    folder = folder_of(tmp_path, rows)
    for name in rows:
        table = as_table(rows[name])
        text = table.column_names.index("text")
        pq.write_table(table.set_column(text, "text", pa.array(range(ROWS))), folder / f"{name}.parquet")
    with pytest.raises(DataError, match="column 'text': expected text, got int"):
        load_data(folder)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nowhere", "does not exist; give a folder, a CSV or a parquet file, or 'easy-vqa'"),
        (3, "expected a folder, a CSV or parquet file, or a DataFrame, got int"),
    ],
)
def test_sources_that_are_none(source, message):
    with pytest.raises(DataError, match=message):
        load_data(source)


def test_options_are_checked(tmp_path, tiny_dataset):
    with pytest.raises(DataError, match="on_bad must be one of"):
        load_data(tiny_dataset, on_bad="ignore")
    with pytest.raises(DataError, match="has its own splits"):
        load_data(tiny_dataset, split="fold")
    with pytest.raises(DataError, match=r"holds no train\.parquet or train\.csv"):
        load_data(tmp_path)
    (tmp_path / "a.txt").touch()
    with pytest.raises(DataError, match="unknown suffix"):
        load_data(tmp_path / "a.txt")
    (tmp_path / "validation.csv").write_text("text,label\na b,x\nc d,y\n")
    (tmp_path / "test.csv").write_text("text,label\na b,x\nc d,y\n")
    with pytest.raises(DataError, match=r"needs a train split, found \['test', 'validation'\]"):
        load_data(tmp_path)


# --- rows to predict on


def test_rows_without_a_target(tiny_data, tiny_regression_data):
    frame = pd.DataFrame({"text": ["a calm thing", None], "table": [[1.0, 2.0, 3.0, None], [0.0, 0.0, 0.0, 0.0]]})
    for data, unknown in ((tiny_data, -1), (tiny_regression_data, None)):
        schema = data.schema.only("text", "table")
        split = load_rows(frame if unknown else frame.assign(table=[[1.0, 2.0], [0.0, 0.0]]), schema)
        assert len(split) == 2
        assert split.example(1)["text"] is None
        assert (split.targets == -1).all() if unknown else np.isnan(split.targets).all()


def test_rows_that_all_lack_a_modality(tiny_data):
    schema = tiny_data.schema.only("text", "table")
    with pytest.raises(
        DataError, match=r"column 'table' .* is missing; .* or add an empty column if every row lacks it"
    ):
        load_rows(pd.DataFrame({"text": ["a calm thing"]}), schema)
    split = load_rows(pd.DataFrame({"text": ["a calm thing"], "table": [None]}), schema)
    assert split.example(0)["table"] is None
    assert list(split.stack(np.array([0]))[0]) == ["text"]


def test_rows_need_a_modality(tiny_data):
    with pytest.raises(DataError, match=r"rows row 0 .*every modality is missing"):
        load_rows(pd.DataFrame({"text": [None, "x"]}), tiny_data.schema.only("text"))
