"""Batches: the same order for the same seed, padding, masks, memory and workers."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import CLASSIFICATION, as_table, classification_rows, png, write_dataset
from triptych.data.collate import collate
from triptych.data.decode import decode
from triptych.data.loader import batch_of, batches, order
from triptych.data.read import load_data
from triptych.errors import DataError, UnknownModality


def same(first, second) -> bool:
    return first.inputs.keys() == second.inputs.keys() and all(
        torch.equal(first.inputs[name].nan_to_num(-7), second.inputs[name].nan_to_num(-7)) for name in first.inputs
    )


def test_a_batch_has_the_agreed_form(tiny_data):
    batch = batch_of(tiny_data.train, range(16))
    forms = {name: (tuple(x.shape), x.dtype) for name, x in batch.inputs.items()}
    longest = max(len(tiny_data.train.example(row)["text"]) for row in range(16))
    assert forms == {
        "image": ((16, 16, 16, 3), torch.uint8),
        "audio": ((16, tiny_data.schema["audio"].max_samples), torch.float32),
        "text": ((16, longest), torch.int64),
        "series": ((16, 20, 3), torch.float32),
        "table": ((16, 4), torch.float32),
    }
    assert batch.target.tolist() == tiny_data.train.targets[:16].tolist()
    assert batch.rows.tolist() == list(range(16))


def test_missing_modalities_are_marked_and_filled(tiny_data):
    batch = batch_of(tiny_data.train, [2, 3, 11])
    assert {name: mask.tolist() for name, mask in batch.present.items()} == {
        "image": [True, False, True],
        "audio": [True, True, False],
    }
    assert (batch.inputs["image"][1] == 0).all()
    assert batch.inputs["audio"][2].isnan().all()
    assert "audio" not in batch_of(tiny_data.train, [11]).inputs
    assert not batch_of(tiny_data.train, [0, 1]).present


def test_a_clip_is_padded_with_nan(tiny_data):
    example = tiny_data.train.example(0)["audio"]
    row = batch_of(tiny_data.train, [0]).inputs["audio"][0]
    np.testing.assert_array_equal(row[: len(example)], example)
    assert row[len(example) :].isnan().all()


def test_batches_equal_the_collated_examples(tiny_data):
    rows = [1, 3, 19, 27]
    inputs, present = collate([tiny_data.train.example(row) for row in rows], tiny_data.schema)
    batch = batch_of(tiny_data.train, rows)
    assert {name: mask.tolist() for name, mask in batch.present.items()} == {n: m.tolist() for n, m in present.items()}
    for name, array in inputs.items():
        np.testing.assert_array_equal(batch.inputs[name].numpy(), array)


@pytest.mark.parametrize("cache_bytes", [0, 50_000, 1 << 30])
def test_memory_does_not_change_what_is_read(tiny_dataset, tiny_data, cache_bytes):
    data = load_data(tiny_dataset, cache_bytes=cache_bytes)
    for epoch in (0, 0, 1):
        pairs = zip(
            batches(data.train, batch_size=10, seed=1, epoch=epoch),
            batches(tiny_data.train, batch_size=10, seed=1, epoch=epoch),
            strict=True,
        )
        assert all(same(one, other) for one, other in pairs)


def test_a_decoded_row_is_kept(tiny_dataset, monkeypatch):
    data = load_data(tiny_dataset)
    first = [b.inputs["image"] for b in batches(data.train, batch_size=16, seed=0)]
    monkeypatch.setattr("triptych.data.feed.decode", None)
    again = [b.inputs["image"] for b in batches(data.train, batch_size=16, seed=0)]
    assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))


def test_rows_that_share_a_file_are_decoded_once(tmp_path, monkeypatch):
    (tmp_path / "a.png").write_bytes(png(np.full((4, 4, 3), (9, 0, 0), np.uint8)))
    frame = pd.DataFrame({"picture": ["a.png"] * 20, "text": ["same words"] * 20, "label": [0, 1] * 10})
    frame.to_csv(tmp_path / "rows.csv", index=False)
    data = load_data(tmp_path / "rows.csv")
    kinds = []
    monkeypatch.setattr("triptych.data.feed.decode", lambda m, *rest: kinds.append(m.kind) or decode(m, *rest))
    for _ in range(2):
        list(batches(data.train, batch_size=5, seed=0))
    assert sorted(kinds) == ["image", "text"]


def test_workers_give_the_same_batches(tiny_dataset, tiny_data):
    data = load_data(tiny_dataset)
    for epoch in (0, 1):
        ours = list(batches(data.train, batch_size=20, seed=5, epoch=epoch, workers=2))
        plain = list(batches(tiny_data.train, batch_size=20, seed=5, epoch=epoch))
        assert all(same(one, other) for one, other in zip(ours, plain, strict=True))
        assert [b.target.tolist() for b in ours] == [b.target.tolist() for b in plain]
    assert all(data.train.table.feed(m).knows(data.train.numbers) for m in data.schema.modalities)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_row_is_named_also_by_workers(tmp_path: Path, workers):
    rows = {name: classification_rows(name, 9, missing=False) for name in ("train", "validation", "test")}
    rows["test"]["picture"][4] = {"bytes": b"\x89PNG\r\n\x1a\n", "path": None}
    folder = write_dataset(tmp_path / "d", CLASSIFICATION, {name: as_table(columns) for name, columns in rows.items()})
    data = load_data(folder)
    with pytest.raises(DataError, match=r"^test row 4 \(id 'test-4'\), column 'picture': the PNG image is cut off"):
        list(batches(data.test, batch_size=4, seed=0, workers=workers))


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 50), st.booleans(), st.booleans(), st.integers(0, 3))
def test_an_epoch_visits_every_row_once(tiny_data, batch_size, shuffle, drop_last, epoch):
    split = tiny_data.validation
    options = {"batch_size": batch_size, "seed": 0, "epoch": epoch, "shuffle": shuffle, "drop_last": drop_last}
    rows = [b.rows.tolist() for b in batches(split, **options)]
    flat = [row for batch in rows for row in batch]
    assert len(set(flat)) == len(flat) == (len(split) // batch_size * batch_size if drop_last else len(split))
    if not shuffle:
        assert flat == sorted(flat)
    assert rows == [b.rows.tolist() for b in batches(split, **options)]


def test_the_order_depends_on_seed_and_epoch():
    orders = [order(50, seed=seed, epoch=epoch).tolist() for seed in (0, 1) for epoch in (0, 1)]
    assert all(sorted(one) == list(range(50)) for one in orders)
    assert len({tuple(one) for one in orders}) == 4


def test_batches_follow_a_given_schema(tiny_data):
    (batch,) = batches(tiny_data.test, tiny_data.schema.only("table"), batch_size=99, seed=0)
    assert list(batch.inputs) == ["table"]


def test_a_batch_size_below_one(tiny_data):
    with pytest.raises(DataError, match="batch_size must be at least 1, got 0"):
        list(batches(tiny_data.test, batch_size=0, seed=0))


def test_collate_refuses_what_it_cannot_batch(tiny_data):
    schema = tiny_data.schema
    with pytest.raises(DataError, match="at least one row"):
        collate([], schema)
    with pytest.raises(DataError, match="row 1 of the batch has no modality"):
        collate([{"table": np.zeros(4, np.float32)}, {"table": None}], schema)
    with pytest.raises(UnknownModality, match=r"no modality \['smell'\]"):
        collate([{"smell": np.zeros(4)}], schema)


@pytest.mark.parametrize(
    ("name", "array", "expected"),
    [
        ("series", np.zeros((3, 2), np.float32), "('any', 3) float32"),
        ("series", np.zeros((3, 3)), "('any', 3) float32"),
        ("table", np.zeros(5, np.float32), "(4,) float32"),
        ("image", np.zeros((8, 8, 1), np.uint8), "('any', 'any', 3) uint8"),
        ("text", np.zeros((2, 2), np.int64), "('any',) int64"),
        ("audio", np.zeros(9, np.int16), "('any',) float32"),
    ],
)
def test_collate_refuses_another_form(tiny_data, name, array, expected):
    with pytest.raises(DataError, match=re.escape(f"{name!r} is {array.shape} {array.dtype}, expected {expected}")):
        collate([{name: array}], tiny_data.schema)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=5))
def test_padding_adds_only_fillers(tiny_data, lengths):
    schema = tiny_data.schema
    rows = [{"series": np.ones((n, 3), np.float32), "text": np.ones(n, np.int64)} for n in lengths]
    inputs, present = collate(rows, schema)
    frames, tokens = schema["series"].frames, schema["text"].max_tokens
    assert inputs["series"].shape == (len(lengths), frames, 3)
    assert inputs["text"].shape == (len(lengths), min(max(lengths), tokens))
    assert not present
    for row, length in enumerate(lengths):
        assert np.nansum(inputs["series"][row]) == 3 * min(length, frames)
        assert np.isnan(inputs["series"][row, length:]).all()
        assert inputs["text"][row].sum() == min(length, tokens)
