"""Made factors are what they say: shared, unique, or seen only together."""

import dataclasses

import numpy as np
import pytest

from triptych.data.factors import Factors, make_factors
from triptych.data.loader import batch_of
from triptych.errors import DataError
from triptych.train.s3 import mutual_information

ROWS = {"train": 4000, "validation": 8, "test": 8}


def test_no_part_alone_says_anything_of_what_they_say_together() -> None:
    sizes = Factors(modalities=("a", "b", "c"), rows=ROWS, frames=1, channels=2)
    values = make_factors(sizes).factors["train"]
    parts = [values[f"part.{name}"] for name in "abc"]
    assert (sum(parts) % 4 == values["together"]).all()
    assert mutual_information(values["together"], np.arange(4000) % 4) < 0.01
    for part in parts:
        assert mutual_information(part, values["together"]) < 0.01
    assert mutual_information(parts[0] + 4 * parts[1] + 16 * parts[2], values["together"]) > 1.99
    assert mutual_information(values["unique.a"], values["unique.b"]) < 0.01


def test_frames_show_the_factor_that_they_are_said_to_show() -> None:
    made = make_factors(Factors(rows={"train": 50, "validation": 5, "test": 5}, noise=0.0))
    assert made.frames["one"] == ("shared",) * 4 + ("unique.one",) * 4 + ("part.one",) * 4
    shown = batch_of(made.data.train, range(50)).inputs["one"].numpy()
    for start, factor in ((0, "shared"), (4, "unique.one"), (8, "part.one")):
        by_value = {}
        for row, value in enumerate(made.factors["train"][factor]):
            frames = shown[row, start : start + 4]
            assert np.allclose(by_value.setdefault(int(value), frames), frames)
        assert len(by_value) == 4
    assert np.array_equal(made.data.test.targets, made.factors["test"]["together"])


def test_the_same_seed_gives_the_same_data() -> None:
    sizes = Factors(rows={"train": 20, "validation": 5, "test": 5})
    one, same, other = (make_factors(sizes, seed=seed).data.fingerprint for seed in (1, 1, 2))
    assert one == same != other


def test_impossible_factors_are_refused() -> None:
    with pytest.raises(DataError, match="two modalities"):
        Factors(modalities=("a",))
    with pytest.raises(DataError, match="rows must be given"):
        dataclasses.replace(Factors(), rows={"train": 5})
