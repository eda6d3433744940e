"""What a gate lets through, from the rows to the report."""

import numpy as np
import pytest

from triptych.errors import MeasureError
from triptych.measure.assemble import report_of
from triptych.measure.candidate import Launch
from triptych.measure.lane import Lane, Taken
from triptych.schema import Modality, Schema

SCHEMA = Schema(
    "s",
    (Modality("a", "table", fields=("x",)), Modality("b", "table", fields=("x",))),
    "y",
    "classification",
    "accuracy",
    classes=("n", "p"),
)


def lane() -> Lane:
    return Lane("one", Launch(command=("true",), size_bytes=None, bundle_bytes=None, schema=None), SCHEMA)


def test_shares_and_skips_are_of_the_rows_that_have_the_modality() -> None:
    taken = lane()
    taken._take_down([{"shares": {"a": 1.0, "b": 0.0}, "flops": 10}, {"shares": {"a": 0.25}, "flops": None}])
    taken._take_down([{"shares": {"a": 0.0, "b": 0.5}, "flops": 21}, {"shares": {"a": 0.75}, "flops": None}])
    found = Taken(samples_s=[1.0, 1.0], outputs=np.array([[0.0, 1.0]] * 4), flops={"a.encode": 99, "b.encode": 1})
    found.shares, found.executed = taken.taken.shares, taken.taken.executed
    report = report_of(found, found, np.ones(4, np.int64), SCHEMA, rounds=2, threads=1, floor_bytes=None)
    assert (report.parts["a"].kept, report.parts["a"].skipped) == (0.5, 0.25)
    assert (report.parts["b"].kept, report.parts["b"].skipped) == (0.25, 0.5)
    assert report.flops == round((10 + 21) / 2)
    assert report.from_dict(report.to_dict()).parts["b"].skipped == 0.5


def test_without_a_gate_nothing_is_said_of_shares() -> None:
    found = Taken(samples_s=[1.0, 1.0], outputs=np.array([[0.0, 1.0]] * 4), flops={"a.encode": 99, "b.encode": 1})
    report = report_of(found, found, np.ones(4, np.int64), SCHEMA, rounds=2, threads=1, floor_bytes=None)
    assert report.parts["a"].kept is None
    assert report.flops == 100


def test_a_share_that_is_no_number_is_refused() -> None:
    with pytest.raises(MeasureError, match="should have given shares of tokens"):
        lane()._take_down([{"shares": {"a": "all"}}])
