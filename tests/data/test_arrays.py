"""Video, points, codes and deep images: what is read, what is refused, and how it is measured and batched."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.conftest import png
from triptych.data.arrays import eight_bits, read_npy
from triptych.data.collate import collate, conform
from triptych.data.declare import parse_declaration
from triptych.data.decode import decode
from triptych.data.limits import Limits
from triptych.errors import DataError, DecodeError, LimitError, SchemaError
from triptych.report.inputs import drawable
from triptych.schema import Modality, Schema
from triptych.system.bundle.card import model_card
from triptych.system.runtime.check import Checker

VIDEO = Modality("clip", "video", frames=4, height=6, width=8, channels=1)
POINTS = Modality("cloud", "points", max_points=5, channels=3)
CODES = Modality("units", "codes", max_tokens=4, channels=2, vocabulary=9)
DEPTH = Modality("depth", "image", height=6, width=8, channels=1, center=(1000.0,), scale=(200.0,))
SCHEMA = Schema("made", (VIDEO, POINTS, CODES, DEPTH), "y", "classification", "accuracy", classes=("a", "b"))
TIGHT = Limits(max_values=400, max_frames=10, max_pixels=60, max_aspect=4)


def npy(array: np.ndarray, *, pickle: bool = False) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=pickle)
    return stream.getvalue()


def frames(count: int = 4) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, 6, 8, 1)).astype(np.uint8)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.float32, np.float64])
def test_a_numpy_file_comes_back(dtype: Any, order: Any) -> None:
    array = np.asarray(np.arange(24).reshape(2, 3, 4), dtype=dtype, order=order)
    assert np.array_equal(read_npy(npy(array), Limits()), array)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x00\x00\x00\x18ftypmp42", "media containers such as MP4 are not decoded here"),
        (npy(np.arange(5))[:-3], "declares 5 values and holds another number"),
        (npy(np.arange(5)) + b"more", "declares 5 values and holds another number"),
        (b"\x93NUMPY\x01\x00\xff\xff{", "header of the NumPy file is damaged"),
        (npy(np.array([{}]), pickle=True), "expected a NumPy file of numbers, got object"),
        (npy(np.array(["a"])), "expected a NumPy file of numbers"),
    ],
)
def test_what_is_no_numpy_file_of_numbers_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(DecodeError, match=message):
        read_npy(data, Limits())


def test_a_header_that_asks_for_too_much_is_refused_before_anything_is_built() -> None:
    header = npy(np.zeros(1)).replace(b"(1,), }", b"(9999999999,), }")
    with pytest.raises(LimitError, match="max_values"):
        read_npy(header, Limits())


def test_frames_come_as_an_array_a_list_a_file_or_its_bytes(tmp_path: Path) -> None:
    given = frames()
    np.save(tmp_path / "clip.npy", given)
    values: list[Any] = [given, given.tolist(), npy(given), {"bytes": npy(given), "path": None}, tmp_path / "clip.npy"]
    for value in (*values, given[..., 0]):
        assert np.array_equal(decode(VIDEO, value), given)
    colour = decode(Modality("clip", "video", channels=3), given)
    assert colour.shape == (4, 6, 8, 3)
    assert (colour == given).all()


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (np.zeros((4, 6)), DecodeError, "frames, height, width"),
        (np.zeros((4, 6, 8, 2), np.uint8), DecodeError, "1 or 3"),
        (np.zeros((4, 6, 8, 1), np.float32), DecodeError, "uint8 pixels, got float32"),
        (np.full((1, 6, 8, 1), 300), DecodeError, "pixels from 0 to 255, got 300 to 300"),
        ([[1, 2], [3]], DataError, "rows of one length"),
        ([["a"]], DataError, "expected numbers"),
        ("film.mp4", DecodeError, "does not exist"),
        ("https://example.org/film.npy", DecodeError, "nothing is fetched"),
        (np.zeros((11, 2, 2, 1), np.uint8), LimitError, "max_frames"),
        (np.zeros((1, 8, 8, 1), np.uint8), LimitError, "max_pixels"),
        (np.zeros((1, 2, 9, 1), np.uint8), LimitError, "max_aspect"),
        (np.zeros((9, 7, 7, 1), np.uint8), LimitError, "max_values"),
    ],
)
def test_bad_frames_are_refused_with_a_reason(value: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        decode(VIDEO, value, TIGHT)


def test_as_many_frames_as_the_schema_says_are_taken_evenly() -> None:
    long = np.arange(8, dtype=np.uint8).reshape(8, 1, 1, 1).repeat(6, 1).repeat(8, 2)
    assert conform(VIDEO, long)[:, 0, 0, 0].tolist() == [1, 3, 5, 7]
    assert conform(VIDEO, long[:2])[:, 0, 0, 0].tolist() == [0, 0, 1, 1]
    assert np.array_equal(conform(VIDEO, long[:4]), long[:4])
    assert conform(VIDEO, frames(4).repeat(2, 1).repeat(3, 2)).shape == (4, 6, 8, 1)


def test_points_keep_what_is_missing_and_large_clouds_are_thinned() -> None:
    cloud = np.arange(30, dtype=np.float64).reshape(10, 3)
    cloud[4, 2] = np.nan
    read = decode(POINTS, cloud.tolist())
    assert read.dtype == np.float32
    assert np.array_equal(read, cloud.astype(np.float32), equal_nan=True)
    assert conform(POINTS, read)[:, 0].tolist() == [3.0, 9.0, 15.0, 21.0, 27.0]
    for value, message in (([1.0, 2.0], "points, 3"), (np.zeros((2, 4)), "points, 3"), ([[1.0, 2.0, np.inf]], "infin")):
        with pytest.raises(DataError, match=message):
            decode(POINTS, value)


def test_codes_are_moved_by_one_so_that_zero_is_none() -> None:
    assert decode(CODES, [[0, 7], [3, -1]]).tolist() == [[1, 8], [4, 0]]
    assert decode(Modality("units", "codes", channels=1), [0, 4]).tolist() == [[1], [5]]
    for value in ([[0, 8]], [[-2, 0]]):
        with pytest.raises(DataError, match=r"codes must be in \[-1, 8\)"):
            decode(CODES, value)
    for wrong in ([[0.5, 1.0]], [[1, 2, 3]]):
        with pytest.raises(DataError, match="whole numbers"):
            decode(CODES, wrong)


def test_deep_images_become_levels_around_the_median() -> None:
    values = np.array([[1000.0, 1200.0, 800.0, np.nan, 9000.0, 0.0]])
    assert eight_bits(DEPTH, values)[0, :, 0].tolist() == [128, 160, 96, 128, 255, 0]


def test_a_deep_image_comes_as_a_png_an_array_a_list_or_a_file() -> None:
    values = np.random.default_rng(0).integers(500, 1500, (6, 8)).astype(np.uint16)
    stream = io.BytesIO()
    Image.fromarray(values).save(stream, "PNG")
    expected = eight_bits(DEPTH, values)
    others: list[Any] = [values, values.astype(np.float32), values.tolist(), npy(values), stream.getvalue()]
    for value in others:
        assert np.array_equal(decode(DEPTH, value), expected)
    for wrong in (png(np.zeros((6, 8, 1), np.uint8)), np.zeros((6, 8), np.uint8), np.zeros((6, 8, 3), np.float32)):
        with pytest.raises(DecodeError, match="16 bits or more, as in training"):
            decode(DEPTH, wrong)
    with pytest.raises(DecodeError, match="infinite"):
        decode(DEPTH, np.full((6, 8), np.inf))
    with pytest.raises(DecodeError, match="uint8 pixels"):
        decode(Modality("photo", "image", channels=1), values)


def test_a_batch_pads_what_is_short_and_marks_what_is_missing() -> None:
    full = {"clip": frames(), "cloud": np.ones((3, 3), np.float32), "units": np.ones((2, 2), np.int64)}
    full["depth"] = np.zeros((6, 8, 1), np.uint8)
    inputs, present = collate([full, {**dict.fromkeys(full), "units": full["units"]}], SCHEMA)
    assert {name: value.shape for name, value in inputs.items()} == {
        "clip": (2, 4, 6, 8, 1),
        "cloud": (2, 5, 3),
        "units": (2, 4, 2),
        "depth": (2, 6, 8, 1),
    }
    assert np.isnan(inputs["cloud"][0, 3:]).all()
    assert (inputs["units"][:, 2:] == 0).all()
    assert sorted(present) == ["clip", "cloud", "depth"]
    Checker(SCHEMA)(inputs)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("clip", np.zeros((1, 4, 6, 9, 1), np.uint8), "must have the shape"),
        ("cloud", np.zeros((1, 5, 3)), "float32"),
        ("cloud", np.full((1, 5, 3), np.inf, np.float32), "infinity"),
        ("units", np.full((1, 4, 2), 9), r"ids must be in \[0, 9\)"),
        ("units", np.full((1, 4, 2), -1), r"ids must be in \[0, 9\)"),
    ],
)
def test_raw_inputs_of_another_form_never_reach_a_graph(name: str, value: np.ndarray, message: str) -> None:
    with pytest.raises(SchemaError, match=message):
        Checker(SCHEMA).value(name, value)


def test_the_new_kinds_are_declared_and_written_down_like_the_others() -> None:
    table = {
        "clip": {"kind": "video", "frames": 4, "height": 6, "width": 8, "channels": 1},
        "cloud": {"kind": "points", "channels": 3, "max_points": 5, "channel_names": ["x", "y", "z"]},
        "units": {"kind": "codes", "channels": 2, "max_tokens": 4, "vocabulary": 9},
    }
    target = {"column": "y", "classes": ["a", "b"]}
    declared = parse_declaration({"target": target, "modalities": table})
    assert declared.modalities[1].fields == ("x", "y", "z")
    assert [m.kind for m in declared.modalities] == ["video", "points", "codes"]
    for name, wrong, message in (
        ("clip", {"channels": 2}, "a video has 1 or 3 channels"),
        ("cloud", {"channel_names": ["x"]}, "1 names for 3 channels"),
        ("units", {"vocabulary": 0}, "whole number above 0"),
        ("clip", {"sample_rate": 1}, "video knows"),
    ):
        with pytest.raises(DataError, match=message):
            parse_declaration({"target": target, "modalities": {name: {**table[name], **wrong}}})
    assert Schema.from_dict(SCHEMA.to_dict()) == SCHEMA


def test_reports_and_cards_have_something_to_show() -> None:
    drawn = drawable(VIDEO, frames())
    assert drawn["src"].startswith("data:image/png")
    cloud = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    cloud[4] = np.nan
    assert drawable(POINTS, cloud)["width"] == 80
    assert drawable(CODES, np.array([[1, 8], [4, 0], [0, 0]]))["text"] == "0/7 3/-1"
    card = model_card(SCHEMA)
    for words in ("4 frames of 8x6 pixels", "up to 5 points of 3 features", "up to 4 tokens of 2 codes below 8"):
        assert words in card
