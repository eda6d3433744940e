"""Shapley values by hand, on known games, and what stands for the answer of nothing."""

import numpy as np
import pytest

from triptych.measure.shapley import Orders, constant_answer, qualities, shapley
from triptych.schema import Modality, Schema

NAMES = ("a", "b", "c", "d", "e")


def schema(metric, *names):
    task = "regression" if metric in {"mae", "acc2"} else "classification"
    classes = ("no", "yes") if task == "classification" else ()
    modalities = tuple(Modality(name, "table") for name in names or ("a", "b"))
    positive = "yes" if metric == "auroc" else ""
    return Schema("s", modalities, "y", task, metric, classes=classes, positive=positive)


def chosen(*labels):
    """Logits that choose these labels."""
    return np.eye(2)[list(labels)]


def game(orders, value):
    """Mean gains in a game whose value depends on the members alone."""
    values = {subset: np.array([value(set(subset))]) for subset in ((), *orders.subsets())}
    return dict(zip(orders.names, orders.gains(values).mean(axis=0)[:, 0], strict=True))


def test_two_modalities_by_hand():
    targets = np.array([0, 0, 0, 1])
    answers = {("a",): chosen(0, 0, 1, 0), ("b",): chosen(0, 0, 0, 0), ("a", "b"): chosen(0, 0, 0, 1)}
    orders = Orders.of(("a", "b"), seed=0)
    found = shapley(answers, targets, schema("accuracy"), orders, generator=np.random.default_rng(0))
    # nothing 3/4, a 2/4, b 3/4, both 4/4: a joins first with -1/4 or last with +1/4, b with 0 or +2/4
    assert found["a"].value == pytest.approx(0.0)
    assert found["b"].value == pytest.approx(0.25)
    assert found["a"].interval[0] < 0 < found["a"].interval[1]
    assert found["b"].interval[0] >= 0
    assert qualities(answers, targets, schema("accuracy")) == {"": 0.75, "a": 0.5, "b": 0.75, "a+b": 1.0}


def test_the_values_add_up_to_what_all_gain_over_nothing():
    rng = np.random.default_rng(1)
    targets, orders = rng.integers(0, 2, 50), Orders.of(NAMES[:3], seed=0)
    answers = {subset: rng.normal(size=(50, 2)) for subset in orders.subsets()}
    for metric in ("accuracy", "auroc"):
        kind = schema(metric, *NAMES[:3])
        found, whole = shapley(answers, targets, kind, orders, generator=rng), qualities(answers, targets, kind)
        assert sum(one.value for one in found.values()) == pytest.approx(whole["a+b+c"] - whole[""])
        assert all(one.interval[0] <= one.value <= one.interval[1] for one in found.values())


def test_a_known_game():
    """One left glove and two right ones: a pair is worth one (Shapley's 2/3, 1/6, 1/6)."""
    found = game(Orders.of(("left", "right", "spare"), seed=0), lambda have: float("left" in have and len(have) > 1))
    assert found == pytest.approx({"left": 2 / 3, "right": 1 / 6, "spare": 1 / 6})


def test_up_to_four_modalities_every_order_and_above_drawn_ones_with_their_reverses():
    assert len(set(Orders.of(NAMES[:4], seed=0).joined)) == 24
    assert len(Orders.of(NAMES[:4], seed=0).subsets()) == 15
    drawn = Orders.of(NAMES, seed=0)
    assert len(drawn.joined) == 16
    assert all(drawn.joined[i + 1] == drawn.joined[i][::-1] for i in range(0, 16, 2))
    assert drawn == Orders.of(NAMES, seed=0)
    assert drawn != Orders.of(NAMES, seed=1)


def test_drawn_orders_are_exact_where_nothing_interacts_or_only_pairs_do():
    weights = dict(zip(NAMES, (1.0, -2.0, 0.5, 4.0, 0.0), strict=True))
    orders = Orders.of(NAMES, seed=3)
    assert game(orders, lambda have: sum(weights[name] for name in have)) == pytest.approx(weights)
    pair = game(orders, lambda have: float({"a", "b"} <= have))  # an order and its reverse share it evenly
    assert pair == pytest.approx({"a": 0.5, "b": 0.5, "c": 0.0, "d": 0.0, "e": 0.0})


def test_the_luck_of_the_orders_is_part_of_the_interval():
    orders, rows = Orders.of(NAMES, seed=0), 40
    targets = np.zeros(rows, int)
    targets[0] = 1
    right = chosen(*targets)
    wrong = chosen(*(1 - targets))
    answers = {s: right if len(s) >= 3 else wrong for s in orders.subsets()}
    found = shapley(answers, targets, schema("accuracy", *NAMES), orders, generator=np.random.default_rng(0))
    resampled = orders.weights(500, np.random.default_rng(0))
    assert resampled.sum(axis=0) == pytest.approx(np.ones(500))
    assert resampled.std(axis=1).min() > 0
    assert any(one.interval[1] - one.interval[0] > 0.1 for one in found.values())


def test_the_answer_of_nothing_by_hand():
    assert constant_answer(np.array([0, 1, 1, -1]), schema("accuracy")).argmax(axis=1).tolist() == [1, 1, 1, 1]
    assert constant_answer(np.array([0.0, 2.0, 7.0, np.nan]), schema("mae"))[:, 0].tolist() == [2.0] * 4
    assert constant_answer(np.array([-1.0, -2.0, 3.0]), schema("acc2"))[0, 0] < 0
    targets, answers = np.array([0, 1, 0]), {("a", "b"): np.array([[0.0, 1.0], [0.0, 2.0], [0.0, 0.0]])}
    assert qualities(answers, targets, schema("auroc")) == {"": 0.5, "a+b": 1.0}


def test_an_error_that_falls_is_worth_something():
    targets = np.array([0.0, 2.0, 4.0])
    perfect, off = targets[:, None], targets[:, None] + 1
    answers = {("a",): off, ("b",): np.full((3, 1), 2.0), ("a", "b"): perfect}
    found = shapley(answers, targets, schema("mae"), Orders.of(("a", "b"), seed=0), generator=np.random.default_rng(0))
    # errors: nothing 4/3, a 1, b 4/3, both 0
    assert found["a"].value == pytest.approx((1 / 3 + 4 / 3) / 2)
    assert found["b"].value == pytest.approx((0 + 1) / 2)


def test_a_row_with_nothing_of_a_subset_counts_as_answered_by_looking_at_nothing():
    targets = np.array([1, 1, 0])
    answers = {("a",): np.array([[0.0, 1.0], [np.nan, np.nan], [1.0, 0.0]])}
    assert qualities(answers, targets, schema("accuracy"))["a"] == 1.0
