import numpy as np
import pytest

from triptych.measure import clock
from triptych.measure.assemble import report_of
from triptych.measure.lane import Taken
from triptych.measure.shapley import Orders
from triptych.schema import Modality, Schema

SCHEMA = Schema("s", (Modality("image", "image"), Modality("text", "text")), "y", "regression", "mae", scale=1.0)


def generator():
    return np.random.default_rng(0)


def taken(**fields):
    return Taken(
        ("image", "text"), samples_s=[1.0, 2.0], outputs=np.array([[1.0], [2.0]]), asked=np.ones(2, bool), **fields
    )


def report(found, reference=None, targets=(1.0, 4.0)):
    return report_of(found, reference or found, np.array(targets), SCHEMA, rounds=1, threads=2, floor_bytes=30)


def test_percentiles_by_hand():
    assert clock.percentile([4.0, 1.0, 2.0, 3.0], 50) == 2.5
    assert clock.percentile([0.0, 10.0], 95) == 9.5


def test_the_ratio_is_taken_pair_by_pair():
    # round medians 2, 8, 3 against 1, 2, 3: ratios 2, 4, 1
    ratio, interval = clock.ratio([2, 2, 8, 8, 3, 3], [1, 1, 2, 2, 1, 5], 3, generator=generator())
    assert ratio == 2.0
    assert interval == (1.0, 4.0)


def test_the_ratio_ignores_a_drift_that_both_share():
    drift = np.linspace(1, 10, 20)
    ratio, interval = clock.ratio(3 * drift, drift, 10, generator=generator())
    assert (ratio, *interval) == pytest.approx((3.0, 3.0, 3.0))


def test_memory_is_counted_above_the_floor():
    found = report(taken(peak_bytes_total=100))
    assert (found.peak_bytes, found.peak_bytes_total, found.floor_bytes) == (70, 100, 30)
    assert report(taken(peak_bytes_total=10)).peak_bytes == 0
    assert report(taken()).peak_bytes is None


def test_operations_are_summed_and_absent_ones_are_not_zero():
    assert report(taken(flops={"image.encode": 3, "decide": 4})).flops == 7
    assert report(taken()).flops is None


def test_the_worth_of_a_modality_by_hand():
    # errors 0 and 2 with it; 1 and 4 without it: worth 2.5 - 1
    found = report(taken(subsets={("image",): np.array([[2.0], [0.0]])})).parts["text"]
    assert (found.worth, found.quality, found.rows) == (1.5, 2.5, 2)
    assert found.worth_interval == (1.0, 2.0)


def test_a_row_that_has_nothing_left_does_not_count_for_the_worth():
    found = report(taken(subsets={("image",): np.array([[np.nan], [0.0]])})).parts["text"]
    assert (found.worth, found.rows) == (2.0, 1)
    nothing = report(taken(subsets={("image",): np.array([[np.nan], [np.nan]])})).parts["text"]
    assert (nothing.worth, nothing.rows) == (None, None)


def test_cost_and_worth_of_a_modality_stand_together():
    found = report(taken(parts_s={"image.encode": [1.0, 3.0]}, flops={"image.encode": 3, "text.encode": 5}))
    assert found.parts["image.encode"].p50_s == found.parts["image"].p50_s == 2.0
    assert found.parts["text"].flops == 5
    assert found.parts["text"].p50_s is None


def test_a_drop_against_another_candidate():
    worse = Taken(("image", "text"), samples_s=[3.0, 3.0], outputs=np.array([[0.0], [1.0]]))
    found = report(worse, taken())
    # errors 1 and 3 against 0 and 2
    assert (found.quality, found.drop, found.p50_ratio) == (2.0, 1.0, 2.0)
    assert found.loyalty == 0.0


def test_the_shapley_values_of_two_modalities_by_hand():
    subsets = {("image",): np.array([[2.0], [0.0]]), ("text",): np.array([[1.0], [1.0]])}
    found = report(taken(subsets=subsets, orders=Orders.of(("image", "text"), seed=0)))
    # errors: nothing (2.5 for both) 1.5, image (1 + 4) / 2, text (0 + 3) / 2, both (0 + 2) / 2
    assert found.subsets == {"": 1.5, "image": 2.5, "text": 1.5, "image+text": 1.0}
    assert found.parts["image"].shapley == pytest.approx((-1.0 + 0.5) / 2)
    assert found.parts["text"].shapley == pytest.approx((0.0 + 1.5) / 2)
    assert report(taken(subsets=subsets)).parts["text"].shapley is None


def test_worth_is_of_the_rows_that_were_asked():
    asked = {"asked": np.array([False, True]), "subsets": {("image",): np.array([[0.0]])}}
    found = report(Taken(("image", "text"), samples_s=[1.0], outputs=np.array([[9.0], [2.0]]), **asked))
    assert (found.parts["text"].worth, found.parts["text"].rows) == (2.0, 1)
