import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from triptych.errors import MeasureError
from triptych.measure import quality as q
from triptych.schema import Modality, Schema

IMAGE = (Modality("image", "image"),)
ACCURACY = Schema("a", IMAGE, "y", "classification", "accuracy", classes=("no", "yes", "maybe"))
AUROC = Schema("b", IMAGE, "y", "classification", "auroc", classes=("no", "yes"), positive="yes")
ACC2 = Schema("c", IMAGE, "y", "regression", "acc2")
MAE = Schema("d", IMAGE, "y", "regression", "mae", scale=2.0)


def generator():
    return np.random.default_rng(0)


def binary(scores):
    return np.stack([np.zeros(len(scores)), np.array(scores, float)], axis=1)


def column(values):
    return np.array(values, float)[:, None]


def test_accuracy_by_hand_ignores_unknown_targets():
    outputs = np.eye(3)[[0, 1, 2, 0, 1]]
    assert q.quality(outputs, np.array([0, 1, 1, 2, -1]), ACCURACY) == 2 / 4


def test_auroc_by_hand_with_a_tie():
    # positives 0.8 and 0.5, negatives 0.5 and 0.1: pairs (1, 1, 1/2, 1) of 4
    assert q.quality(binary([0.8, 0.5, 0.5, 0.1]), np.array([1, 1, 0, 0]), AUROC) == 3.5 / 4


def test_auroc_does_not_saturate_at_large_logits():
    assert q.quality(binary([900.0, 800.0]), np.array([1, 0]), AUROC) == 1.0


def test_auroc_of_many_classes_ranks_the_probability_of_the_positive_one():
    schema = Schema("e", IMAGE, "y", "classification", "auroc", classes=("a", "b", "c"), positive="b")
    # probabilities of b: 1/2, 1/3, 0.21; its logits alone would rank them the other way round
    outputs = np.array([[-9.0, 0.0, 0.0], [1.0, 1.0, 1.0], [3.0, 2.0, 2.0]])
    assert q.quality(outputs, np.array([1, 0, 2]), schema) == 1.0


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=2, max_size=12))
@settings(max_examples=50, deadline=None)
def test_auroc_equals_counting_pairs(rows):
    positive = [s for s, y in rows if y]
    negative = [s for s, y in rows if not y]
    if not positive or not negative:
        return
    pairs = [(a > b) + (a == b) / 2 for a, b in itertools.product(positive, negative)]
    outputs, targets = binary([s for s, _ in rows]), np.array([int(y) for _, y in rows])
    assert q.quality(outputs, targets, AUROC) == pytest.approx(np.mean(pairs))


def test_a_row_counted_twice_is_a_row_written_twice():
    outputs, targets = binary([0.8, 0.5, 0.5, 0.1]), np.array([1, 1, 0, 0])
    counts = np.array([[2, 1, 0, 3]])
    index = np.repeat(np.arange(4), counts[0])
    expected = q.quality(outputs[index], targets[index], AUROC)
    assert q.scorer(outputs, targets, AUROC)(counts)[0] == pytest.approx(expected)


def test_acc2_by_hand_ignores_zero_and_unknown_targets():
    # +1/+0.2 right, -1/+0.2 wrong, -2/-1 right, 0 and NaN ignored, an answer of zero has no sign
    outputs, targets = column([0.2, 0.2, -1, 5, 5, 0]), np.array([1, -1, -2, 0, np.nan, 3])
    assert q.quality(outputs, targets, ACC2) == 2 / 4
    assert q.usable(targets, ACC2).sum() == 4


def test_mae_by_hand():
    assert q.quality(column([1, 2, 9]), np.array([0.0, 4.0, np.nan]), MAE) == 1.5


def test_only_an_error_is_better_when_low():
    assert [q.higher_is_better(m) for m in ("accuracy", "auroc", "acc2", "mae")] == [True, True, True, False]


def test_the_interval_of_a_constant_is_a_point_and_of_a_coin_matches_the_binomial():
    targets = np.arange(3) % 2
    assert q.quality_interval(np.eye(3)[targets], targets, ACCURACY, generator=generator()) == (1.0, 1.0)
    rows = 400
    answers = np.eye(3)[np.arange(rows) % 2]
    low, high = q.quality_interval(answers, np.zeros(rows, int), ACCURACY, generator=generator())
    assert low == pytest.approx(0.5 - 1.96 * 0.5 / 20, abs=0.01)  # sqrt(p (1 - p) / 400) = 0.025
    assert high == pytest.approx(0.5 + 1.96 * 0.5 / 20, abs=0.01)


def test_resamples_hold_as_many_rows_as_the_split():
    chunks = list(q.resamples(7, generator(), 100))
    assert sum(len(c) for c in chunks) == 100
    assert all((c.sum(1) == 7).all() for c in chunks)


def test_undefined_resamples_are_left_out_of_the_interval():
    assert q.interval(np.array([np.nan, 1.0, 1.0, np.nan])) == (1.0, 1.0)


def test_mcnemar_by_hand():
    mine = np.array([1, 0, 0, 0, 0, 1, 1], bool)
    theirs = np.array([0, 1, 1, 1, 1, 1, 1], bool)
    # 1 against 4 of 5 discordant rows: 2 (1 + 5) / 32
    assert q.mcnemar(mine, theirs) == 12 / 32
    assert q.mcnemar(mine, mine) == 1.0


def test_sign_flip_by_hand():
    # of the eight sums ±1 ±2 ±3 only +6 and -6 reach 6
    assert q.sign_flip(np.array([1.0, 2.0, 3.0, 0.0]), generator()) == 2 / 8
    assert q.sign_flip(np.zeros(4), generator()) == 1.0
    assert q.sign_flip(np.ones(30), generator()) == 1 / 10000


def test_comparison_by_hand_for_accuracy():
    reference, outputs = np.eye(3)[[0, 1, 2, 0]], np.eye(3)[[0, 1, 1, 1]]
    found = q.compare(outputs, reference, np.array([0, 1, 2, -1]), ACCURACY, generator=generator())
    assert found.drop == pytest.approx(1 / 3)
    assert found.p == 1.0  # one discordant row: 2 · 1/2
    assert found.interval == (0.0, 1.0)


@pytest.mark.parametrize(
    ("schema", "better", "worse", "targets", "drop"),
    [
        (MAE, column([0, 0]), column([1, 2]), np.array([0.0, 0.0]), 1.5),
        (ACC2, column([1, 1]), column([-1, -1]), np.array([2.0, 3.0]), 1.0),
        (AUROC, binary([1, 0]), binary([0, 1]), np.array([1, 0]), 1.0),
    ],
)
def test_a_positive_drop_is_worse_whatever_the_metric(schema, better, worse, targets, drop):
    assert q.compare(worse, better, targets, schema, generator=generator()).drop == drop
    assert q.compare(better, worse, targets, schema, generator=generator()).drop == -drop


@pytest.mark.parametrize(
    ("schema", "targets"), [(ACCURACY, [0, 1, 2, 0]), (AUROC, [0, 1, 1, 0]), (MAE, [1.0, 2, 3, 4])]
)
def test_nothing_differs_from_itself(schema, targets):
    outputs = np.random.default_rng(1).normal(size=(4, schema.outputs))
    found = q.compare(outputs, outputs, np.array(targets), schema, generator=generator())
    assert (found.drop, found.interval, found.p) == (0.0, (0.0, 0.0), 1.0)
    assert q.loyalty(outputs, outputs, schema) == 1.0


def test_the_rank_test_tells_a_perfect_ranking_from_a_reversed_one():
    targets = np.arange(40) % 2
    good = binary(targets + np.linspace(0, 0.5, 40))
    found = q.compare(-good, good, targets, AUROC, generator=generator())
    assert found.drop == 1.0
    assert found.p < 0.01


def test_loyalty_by_hand():
    assert q.loyalty(np.eye(3)[[0, 1, 2]], np.eye(3)[[0, 1, 1]], ACCURACY) == 2 / 3
    assert q.loyalty(column([1, -1, 2, 0]), column([3, 1, 1, 0]), ACC2) == 3 / 4
    # scale 2: within 0.2
    assert q.loyalty(column([1.0, 1.0]), column([1.125, 1.5]), MAE) == 1 / 2


@pytest.mark.parametrize(
    ("schema", "outputs", "targets", "text"),
    [
        (ACCURACY, np.eye(3), [-1, -1, -1], "none of the 3"),
        (ACCURACY, np.zeros((3, 2)), [0, 0, 0], r"expected outputs of shape \(3, 3\)"),
        (AUROC, np.zeros((2, 2)), [1, 1], "both classes"),
        (ACC2, np.zeros((2, 1)), [0.0, np.nan], "known target"),
    ],
)
def test_an_undefined_metric_is_an_error(schema, outputs, targets, text):
    with pytest.raises(MeasureError, match=text):
        q.quality(outputs, np.array(targets), schema)
