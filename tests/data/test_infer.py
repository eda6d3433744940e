"""Tables without a declaration: the guess, the file that is written, and the splits."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from tests.conftest import CLASSES, classification_rows, clip, png
from triptych.data.infer import write_dataset_toml
from triptych.data.partition import by_share
from triptych.data.read import load_data
from triptych.errors import DataError

COUNT = 40


@pytest.fixture
def media_csv(tmp_path):
    """A CSV whose rows name image and sound files, with two number columns and some text."""
    rng = np.random.default_rng(0)
    rows = []
    for number in range(COUNT):
        (tmp_path / f"{number}.png").write_bytes(png(rng.integers(0, 256, (10, 12, 1), dtype=np.uint8)))
        (tmp_path / f"{number}.wav").write_bytes(clip(rng.normal(0, 0.1, 1234).astype(np.float32), form="WAV"))
        rows.append(
            {
                "id": f"row{number}",
                "picture": f"{number}.png",
                "sound": f"{number}.wav" if number % 9 else "",
                "what is said": f"some words {number % 3}",
                "age": number,
                "weight": number / 7 if number % 5 else None,
                "colour": "red",
                "label": number % 2,
            }
        )
    pd.DataFrame(rows).to_csv(tmp_path / "photos.csv", index=False)
    return tmp_path / "photos.csv"


def test_a_csv_with_paths_is_guessed(media_csv):
    data = load_data(media_csv)
    schema = data.schema
    assert {m.name: m.kind for m in schema.modalities} == {
        "picture": "image",
        "sound": "audio",
        "what_is_said": "text",
        "table": "table",
    }
    assert (schema.name, schema.task, schema.classes) == ("photos", "classification", ("0", "1"))
    assert (schema["picture"].height, schema["picture"].width, schema["picture"].channels) == (10, 12, 1)
    assert (schema["sound"].sample_rate, schema["sound"].max_samples) == (8000, 1280)
    assert schema["table"].fields == ("age", "weight")
    sizes = {name: len(split) for name, split in data.splits.items()}
    assert sizes == {"train": 32, "validation": 4, "test": 4}
    for split in data.splits.values():
        for row in range(len(split)):
            number = int(split.ids[row][3:])
            example = split.example(row)
            assert example["picture"].shape == (10, 12, 1)
            assert (example["sound"] is None) == (number % 9 == 0)
            assert example["table"][0] == number
            assert np.isnan(example["table"][1]) == (number % 5 == 0)
            assert split.target(row) == number % 2


def test_init_writes_what_the_user_then_corrects(media_csv):
    guessed = load_data(media_csv)
    path, notes = write_dataset_toml(media_csv)
    assert path == media_csv.parent / "dataset.toml"
    assert any("colour" in note for note in notes)
    text = path.read_text()
    assert all(f"# {note}" in text for note in notes)
    written = load_data(media_csv)
    assert written.schema == guessed.schema
    assert load_data(media_csv.parent).schema == guessed.schema
    path.write_text(
        text.replace('metric = "accuracy"', 'metric = "auroc"').replace("[target]", '[target]\npositive = "1"')
    )
    assert load_data(media_csv).schema.metric == "auroc"
    with pytest.raises(DataError, match=r"dataset\.toml exists already"):
        write_dataset_toml(media_csv)


def test_init_of_a_folder_of_splits(tmp_path):
    for name in ("train", "test"):
        pd.DataFrame({"words": ["a b", "c d", "e f", "g h"], "y": [0.5, 1.25, 2.0, -1]}).to_csv(
            tmp_path / f"{name}.csv"
        )
    path, _ = write_dataset_toml(tmp_path, target="y")
    assert "file" not in path.read_text()
    data = load_data(tmp_path)
    assert (data.schema.task, data.schema.metric, data.schema.range) == ("regression", "mae", (-1.0, 2.0))
    assert len(data.test) == 4


def test_a_frame_with_everything_inline():
    rows = classification_rows("train", COUNT)
    frame = pd.DataFrame(
        {
            "picture": [value and value["bytes"] for value in rows["picture"]],
            "clip": rows["audio"],
            "text": rows["text"],
            "series": [value if value is None else np.array(value) for value in rows["series"]],
            "table": rows["table"],
            "label": rows["label"],
        }
    )
    data = load_data(frame)
    kinds = {m.name: m.kind for m in data.schema.modalities}
    assert kinds == {"picture": "image", "clip": "audio", "text": "text", "series": "series", "table": "table"}
    assert data.schema.classes == tuple(sorted(CLASSES))
    assert data.schema["series"].channels == 3
    for split in data.splits.values():
        split.arrays()


@pytest.mark.parametrize(
    ("values", "task", "classes"),
    [
        ([True, False], "classification", ("false", "true")),
        ([1.0, 2.0], "classification", ("1", "2")),
        ([10, 9], "classification", ("9", "10")),
        ([0.5, 2.0], "regression", ()),
        (list(range(60)), "regression", ()),
        (["b", "a"], "classification", ("a", "b")),
    ],
)
def test_the_target_decides_the_task(values, task, classes):
    labels = [values[i % len(values)] for i in range(max(COUNT, len(values)))]
    schema = load_data(pd.DataFrame({"x": np.arange(len(labels)), "target": labels})).schema
    assert (schema.task, schema.classes) == (task, classes)


def test_guessing_needs_a_target_and_an_input():
    with pytest.raises(DataError, match=r"no column of \['x'\] is named like a target; name it with target="):
        load_data(pd.DataFrame({"x": [1, 2]}))
    with pytest.raises(DataError, match="target column 'z' is missing"):
        load_data(pd.DataFrame({"x": [1, 2]}), target="z")
    with pytest.raises(DataError, match="is an image, a clip, text or numbers"):
        load_data(pd.DataFrame({"x": ["a", "b"], "y": [0, 1]}))
    with pytest.raises(DataError, match="target 'y' has 1 classes"):
        load_data(pd.DataFrame({"x": [1, 2], "y": [0, 0]}))
    with pytest.raises(DataError, match="a column of mixed types"):
        load_data(pd.DataFrame({"x": [1, "a"], "y": [0, 1]}))


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        ({"x": [2**70, 1], "y": [0, 1]}, "a column of mixed types"),
        ({"x": [1, 2], "y": [[1, 2], [3]]}, "must hold text or numbers, got list"),
        ({"x": [1.0, np.inf], "y": [0, 1]}, "row 1 .*column 'table': found an infinite number"),
        ({"x": ["gone.png"] * 2, "y": [0, 1]}, "row . .*column 'x': the file 'gone.png' does not exist"),
        ({"x": [1, 2], "y": [None, None]}, "target 'y' has 0 classes"),
    ],
)
def test_odd_columns_are_one_clear_error(frame, message):
    with pytest.raises(DataError, match=message):
        load_data(pd.DataFrame(frame), split=(1.0, 0.0, 0.0))


def test_two_columns_of_one_name(tmp_path):
    (tmp_path / "a.csv").write_text("x,x,label\n1,2,a\n1,2,b\n")
    with pytest.raises(DataError, match=r"a\.csv has several columns named \['x'\]; rename all but one"):
        load_data(tmp_path / "a.csv")


def test_categories_and_odd_identifiers():
    frame = pd.DataFrame(
        {"id": [None] * 20, "text": pd.Categorical(["a b", "c d"] * 10), "y": pd.Categorical([1, 2] * 10)}
    )
    data = load_data(frame)
    assert (data.schema["text"].kind, data.schema.classes) == ("text", ("1", "2"))
    assert len(set(data.train.ids)) == len(data.train)


def test_how_a_file_is_split_may_be_declared(tmp_path):
    rows = "".join(f"{i},{i % 2},{['train', 'val', 'test'][i % 3]}\n" for i in range(30))
    (tmp_path / "a.csv").write_text("x,label,part\n" + rows)
    path, _ = write_dataset_toml(tmp_path / "a.csv")
    text = path.read_text()
    path.write_text(text + '\n[partition]\ncolumn = "part"\n')
    assert [len(split) for split in load_data(tmp_path).splits.values()] == [10, 10, 10]
    path.write_text(text + "\n[partition]\nshares = [0.4, 0.2, 0.4]\nseed = 4\n")
    assert [len(split) for split in load_data(tmp_path).splits.values()] == [12, 6, 12]


def test_the_split_may_be_a_column_or_shares():
    frame = pd.DataFrame({"x": range(COUNT), "y": [0, 1] * 20, "fold": ["train", "train", "dev", "Test"] * 10})
    data = load_data(frame, split="fold")
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 20, "validation": 10, "test": 10}
    shares = load_data(frame, split=(0.5, 0.25, 0.25))
    assert {name: len(split) for name, split in shares.splits.items()} == {"train": 20, "validation": 10, "test": 10}
    with pytest.raises(DataError, match=r"row 0, column 'x': split 0 is not one of"):
        load_data(frame, split="x")
    with pytest.raises(DataError, match="split column 'z' is missing"):
        load_data(frame, split="z")
    with pytest.raises(DataError, match="three shares"):
        load_data(frame, split=(0.5, 0.6))


def test_shares_are_deterministic_disjoint_and_stratified():
    strata = ["a"] * 80 + ["b"] * 20
    parts = by_share(range(100), strata, (0.8, 0.1, 0.1), 0)
    again = by_share(range(100), strata, (0.8, 0.1, 0.1), 0)
    other = by_share(range(100), strata, (0.8, 0.1, 0.1), 1)
    assert sorted(np.concatenate(list(parts.values()))) == list(range(100))
    assert all((parts[name] == again[name]).all() for name in parts)
    assert any((parts[name] != other[name]).any() for name in parts)
    assert {name: int((rows >= 80).sum()) for name, rows in parts.items()} == {"train": 16, "validation": 2, "test": 2}


def test_groups_stay_together():
    units = [number // 5 for number in range(100)]
    parts = by_share(units, [""] * 100, (0.8, 0.1, 0.1), 3)
    people = [set(np.array(units)[rows]) for rows in parts.values()]
    assert sum(map(len, people)) == len(set.union(*people)) == 20


def test_a_folder_that_datasets_saved(tmp_path):
    datasets = pytest.importorskip("datasets")
    rows = classification_rows("train", 24, missing=False)
    features = datasets.Features(
        {
            "picture": datasets.Image(),
            "text": datasets.Value("string"),
            "table": datasets.Sequence(datasets.Value("float32")),
            "label": datasets.ClassLabel(names=list(CLASSES)),
        }
    )
    chosen = {name: rows[name] for name in features}
    chosen["label"] = [CLASSES.index(label) for label in rows["label"]]
    saved = datasets.Dataset.from_dict(chosen, features=features)
    datasets.DatasetDict({"train": saved, "test": saved.select(range(8))}).save_to_disk(tmp_path / "both")
    data = load_data(tmp_path / "both")
    assert {m.kind for m in data.schema.modalities} == {"image", "text", "table"}
    assert data.schema.classes == tuple(sorted(CLASSES))
    assert len(data.test) == 8
    data.test.arrays()
    assert [data.schema.classes[i] for i in data.test.targets] == rows["label"][:8]
    saved.save_to_disk(tmp_path / "one")
    single = load_data(tmp_path / "one")
    assert sum(len(split) for split in single.splits.values()) == 24
    (tmp_path / "one" / "state.json").write_text("{}")
    with pytest.raises(DataError, match="not a folder that save_to_disk wrote"):
        load_data(tmp_path / "one")
