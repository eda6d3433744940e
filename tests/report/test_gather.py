"""Answers and examples from raw outputs, on a real little dataset read from a table."""

import math

import numpy as np
import pandas as pd
import pytest

from triptych.data.dataset import Dataset
from triptych.data.read import load_data
from triptych.report import RunRecord, answers, examples, words
from triptych.report.page import page
from triptych.report.points import ledger, sentences
from triptych.schema import Modality, Schema

CHOICE = Schema("s", (Modality("t", "text"),), "y", "classification", "accuracy", classes=("a", "b"))
VALUE = Schema("s", (Modality("t", "text"),), "y", "regression", "mae")


@pytest.fixture(scope="module")
def data() -> Dataset:
    rows = 60
    return load_data(
        pd.DataFrame(
            {
                "note": [f"a note about number {i} of the day" for i in range(rows)],
                "height": np.linspace(1, 2, rows),
                "label": [("no", "yes")[i % 2] for i in range(rows)],
            }
        ),
        target="label",
    )


def test_a_confusion_matrix_counts_known_rows() -> None:
    outputs = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [1.0, 0.0]])
    found = answers(outputs, np.array([0, 0, 1, -1]), CHOICE)
    assert found == {"classes": ["a", "b"], "counts": [[1, 1], [0, 1]]}


def test_values_keep_known_rows() -> None:
    found = answers(np.array([[0.5], [1.5]]), np.array([1.0, math.nan], np.float32), VALUE)
    assert found == {"true": [1.0], "predicted": [0.5]}


def test_examples_hold_inputs_and_at_most_half_wrong_answers(data: Dataset) -> None:
    split = data.train
    always_no = np.tile([2.0, 0.0], (len(split), 1))
    found = examples(split, always_no, data.schema, count=6)
    assert [e["right"] for e in found].count(False) == 3
    assert len({e["id"] for e in found}) == len(found) == 6
    assert found[0]["confidence"] == pytest.approx(1 / (1 + math.exp(-2)))
    assert found[0]["inputs"]["note"]["text"].startswith("a note about")
    assert found[0]["inputs"]["table"]["fields"].keys() == {"height"}


def test_examples_of_a_faultless_model_are_all_right(data: Dataset) -> None:
    perfect = np.eye(2)[data.train.targets]
    assert all(e["right"] for e in examples(data.train, perfect, data.schema, count=4))


def test_the_ledger_joins_the_report_and_the_record() -> None:
    schema = {"modalities": [{"name": "image", "kind": "image"}, {"name": "text", "kind": "text"}]}
    parts = {"image": {"p50_s": 0.1, "worth": 0.2}, "image.encode": {"p50_s": 0.1}}
    run = RunRecord("d", schema, reports={"chosen": {"parts": parts}}, modalities={"image": {"alone": 0.6}})
    assert ledger(run) == {"image": {"kind": "image", "p50_s": 0.1, "worth": 0.2, "alone": 0.6}}


def test_the_ledger_holds_what_the_measured_report_tells() -> None:
    schema = {
        "metric": "accuracy",
        "modalities": [{"name": "image", "kind": "image"}, {"name": "text", "kind": "text"}],
    }
    image = {"p50_s": 0.3, "flops": 5, "params": 7, "shapley": 0.2, "shapley_interval": [0.1, 0.3], "worth": 0.0}
    parts = {"image": {**image, "worth_interval": [-0.1, 0.1]}, "text": {"p50_s": 0.6}, "decide": {"p50_s": 0.1}}
    report = {"parts": parts, "subsets": {"": 0.5, "image": 0.7}, "energy_source": "unavailable: no counter"}
    run = RunRecord("d", schema, reports={"chosen": report})
    line = ledger(run)["image"]
    assert (line["share"], line["share_of"], line["alone"], line["params"]) == (pytest.approx(0.3), "time", 0.7, 7)
    assert (line["shapley"], line["shapley_interval"], line["energy_share"]) == (0.2, [0.1, 0.3], pytest.approx(0.3))
    assert "shapley" not in ledger(run)["text"]
    assert sentences(run)[1].startswith(
        "image costs 30 % of the time and earns 20.0 ± 10.0 points; without it 0.0 ± 10.0"
    )
    assert sentences(RunRecord("d", schema)) == ()


def test_a_search_is_told_in_both_directions(tiny_pairs_data: Dataset) -> None:
    split, schema = tiny_pairs_data.test, tiny_pairs_data.schema
    perfect = np.tile(np.eye(len(split)), 2)
    found = answers(perfect, np.asarray(split.targets), schema)
    assert found["rows"] == 16
    assert [(d["query"], d["answer"]) for d in found["directions"]] == [("photo", "title"), ("title", "photo")]
    assert all(d["recall_at_1"] == 1 and d["median_rank"] == 1 for d in found["directions"])
    off = np.concatenate([np.eye(16), np.roll(np.eye(16), 1, axis=0)], axis=1)
    shown = examples(split, off, schema, count=6)
    assert not any(e["right"] for e in shown if e["id"] not in {"test-0", "test-15"})
    second = next(e for e in shown if e["id"] not in {"test-0", "test-15"})
    number = int(second["id"].removeprefix("test-"))
    assert second["true"] == split.raw(number)["title"]
    assert second["predicted"] == split.raw(number + 1)["title"]
    assert second["inputs"].keys() == {"photo", "title"}


def test_the_page_of_a_retrieval_run_shows_what_a_search_finds(tiny_pairs_data: Dataset) -> None:
    split, schema = tiny_pairs_data.test, tiny_pairs_data.schema
    outputs = np.tile(np.eye(len(split)), 2)
    record = RunRecord(
        dataset="pairs",
        schema=schema.to_dict(),
        reports={name: {"quality": 0.5, "p50_s": 0.001} for name in ("reference", "chosen")},
        confusion=answers(outputs, np.asarray(split.targets), schema),
        examples=examples(split, outputs, schema),
    )
    text = page(RunRecord.from_dict(record.to_dict()))
    assert "What a search finds" in text
    assert "photo → title" in text
    assert "Retrieval, in both directions, between" in text
    assert "recall at 1 50.0" in text


def test_details_are_written_by_what_they_are() -> None:
    assert words.detail("a_to_b_recall_at_10", 0.5) == words.quality(0.5, "recall_at_10")
    assert words.detail("a_to_b_median_rank", 12.0) == "12"
