import dataclasses
import json

import pytest

from triptych.errors import MeasureError
from triptych.measure.report import MEANING, Report

FULL = Report(
    metric="accuracy",
    quality=0.75,
    quality_interval=(0.5, 1.0),
    p50_s=0.002,
    samples_s=(0.001, 0.002, 0.003),
    peak_bytes=1000,
    environment={"cores": 2},
    parts={"image": Report(worth=0.25, flops=10)},
)


def test_a_report_survives_json():
    assert Report.from_dict(json.loads(json.dumps(FULL.to_dict()))) == FULL


def test_what_was_not_measured_is_none_and_not_written():
    assert Report().to_dict() == {}
    assert Report.from_dict({}).quality is None
    assert Report(drop=0.0).to_dict() == {"drop": 0.0}


def test_every_field_has_a_meaning():
    assert {f.name for f in dataclasses.fields(Report)} == MEANING.keys()


@pytest.mark.parametrize(
    ("record", "text"),
    [
        ({"latency": 1}, "unknown keys"),
        ({"quality": "high"}, "finite number"),
        ({"quality": float("nan")}, "finite number"),
        ({"peak_bytes": 1.5}, "whole number"),
        ({"quality_interval": [1.0, 0.0]}, "low, high"),
        ({"quality_interval": [1.0]}, "low, high"),
        ({"samples_s": 3}, "list of numbers"),
        ({"metric": 3}, "must be text"),
        ({"parts": [1]}, "must be an object"),
        ({"parts": {"image": {"speed": 1}}}, "unknown keys"),
    ],
)
def test_a_damaged_record_is_refused(record, text):
    with pytest.raises(MeasureError, match=text):
        Report.from_dict(record)
