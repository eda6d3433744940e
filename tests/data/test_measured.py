"""What is measured on train, against figures worked out by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from tokenizers import Tokenizer

from tests.conftest import clip, png
from triptych.data.feed import Table
from triptych.data.measured import build_tokenizer, measure_modality, robust_scale, target_scale
from triptych.data.read import load_data
from triptych.errors import DataError
from triptych.schema import Modality


def load(frame: dict[str, list[object]], **options):
    count = len(next(iter(frame.values())))
    return load_data(pd.DataFrame({**frame, "label": [i % 2 for i in range(count)]}), **options)


def test_robust_scale_by_hand():
    values = np.array(
        [[0, 5, 1, np.nan], [1, 5, 1, np.nan], [2, 5, 1, np.nan], [3, 5, 9, np.nan], [1000, np.nan, 1, 0]]
    )
    center, scale = robust_scale(values)
    assert center == (2, 5, 1, 0)
    # quartiles 1 and 3; no spread at all; no spread between the quartiles, so the deviation; a single value
    assert scale == pytest.approx(((3 - 1) / 1.349, 1, np.std([1, 1, 1, 9, 1]), 1))
    assert robust_scale(np.full((3, 1), np.nan)) == ((0,), (1,))


def test_target_scale_by_hand():
    assert target_scale(np.array([1, 3, np.nan], np.float32)) == (2, 1)
    assert target_scale(np.array([4, 4], np.float32)) == (4, 1)


def test_the_vocabulary_of_a_small_text():
    document, size = build_tokenizer(["Red bus", "red car!", "RED"])
    tokenizer = Tokenizer.from_str(document)
    vocabulary = tokenizer.get_vocab()
    assert size == len(vocabulary) == 6
    assert (vocabulary["[PAD]"], vocabulary["[UNK]"], vocabulary["red"]) == (0, 1, 2)
    assert tokenizer.encode("a red bus").ids == [1, 2, vocabulary["bus"]]


def test_rare_words_of_a_large_text_are_unknown():
    words = [f"word{number}" for number in range(400)]
    document, size = build_tokenizer([" ".join(words), " ".join(words[:300])])
    assert size == 302
    assert Tokenizer.from_str(document).encode("word7 word350").ids[1] == 1


def test_the_vocabulary_is_bounded_and_the_same_in_any_order():
    words = [f"w{number}" for number in range(9000)]
    document, size = build_tokenizer([" ".join(words)] * 2)
    assert size == 8000
    assert document == build_tokenizer([" ".join(reversed(words))] * 2)[0]


def test_clip_length_is_the_99th_percentile_rounded_up_to_10_ms():
    lengths = [1003] * 199 + [7000]
    clips = [clip(np.zeros(n, np.float32), 8000) for n in lengths]
    schema = load({"sound": clips}, split=(1.0, 0.0, 0.0)).schema
    assert schema["sound"].max_samples == 1040
    assert schema["sound"].max_samples % 80 == 0


def test_long_clips_count_as_eight_seconds():
    schema = load({"sound": [clip(np.zeros(2000, np.float32), 200)] * 4}, split=(1.0, 0.0, 0.0)).schema
    assert schema["sound"].max_samples == 1600


def test_text_length_is_the_99th_percentile():
    schema = load({"words": ["a b"] * 199 + ["a " * 50]}, split=(1.0, 0.0, 0.0)).schema
    assert schema["words"].max_tokens == 2
    assert load({"words": ["a " * 500] * 4}, split=(1.0, 0.0, 0.0)).schema["words"].max_tokens == 128


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([(10, 12)] * 6 + [(300, 300)] * 4, (10, 12)),
        ([(n, 2 * n) for n in range(1, 41)], (39, 78)),
        ([(448, 896)] * 4, (112, 224)),
    ],
)
def test_image_size_when_it_is_not_declared(sizes, expected):
    images = [png(np.full((*size, 3), (9, 0, 0), np.uint8)) for size in sizes]
    schema = load({"image": images}, split=(1.0, 0.0, 0.0)).schema
    assert (schema["image"].height, schema["image"].width, schema["image"].channels) == (*expected, 3)


def test_inline_sound_needs_a_declared_rate():
    with pytest.raises(DataError, match="sample rate of 'sound' is unknown; declare 'sample_rate'"):
        measure_modality(Modality(name="sound", kind="audio"), *table_of([[0.0, 0.1, 0.2]] * 2))
    measured = measure_modality(Modality(name="sound", kind="audio", sample_rate=100), *table_of([[0.0, 0.1, 0.2]] * 2))
    assert measured.max_samples == 3


def table_of(values: list[object]) -> tuple[Table, np.ndarray]:
    return Table("train", pa.table({"sound": values}), root=Path()), np.arange(len(values))


def test_grey_pictures_saved_in_colour_count_as_grey():
    grey = png(np.full((4, 4, 3), 90, np.uint8))
    colour = png(np.full((4, 4, 3), (90, 91, 90), np.uint8))
    assert load({"image": [grey] * 4}, split=(1.0, 0.0, 0.0)).schema["image"].channels == 1
    assert load({"image": [grey, colour] * 2}, split=(1.0, 0.0, 0.0)).schema["image"].channels == 3


def test_series_scale_ignores_missing_samples():
    series = [[[1.0, None], [3.0, 5.0]], [[2.0, 5.0]]] * 2
    schema = load({"series": series}, split=(1.0, 0.0, 0.0)).schema
    assert (schema["series"].channels, schema["series"].frames) == (2, 2)
    assert schema["series"].center == (2, 5)


def test_only_train_is_measured(tiny_data):
    spoken = {word for row in range(48) for word in str(tiny_data.train.raw(row)["text"] or "").split()}
    vocabulary = Tokenizer.from_str(tiny_data.schema["text"].tokenizer).get_vocab()
    assert set(vocabulary) - {"[PAD]", "[UNK]"} == spoken


def test_a_modality_that_train_never_holds():
    frame = pd.DataFrame({"words": [None, None, "a b", "a b"], "x": range(4), "label": [0, 1, 0, 1]})
    frame["split"] = ["train", "train", "validation", "test"]
    with pytest.raises(DataError, match="no train row holds modality 'words'; remove it from the schema or add rows"):
        load_data(frame, split="split")
