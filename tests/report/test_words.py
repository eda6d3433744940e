"""How figures read, each computed by hand."""

import pytest

from triptych.report import words


def say(text: str) -> str:
    return text.replace(words.NBSP, " ")


@pytest.mark.parametrize(
    ("given", "expected"),
    [(None, "–"), (0.00231, "2.31 ms"), (4.2e-5, "42 µs"), (1.5, "1.5 s"), (742, "12.4 min"), (0, "0 µs")],
)
def test_seconds(given: float | None, expected: str) -> None:
    assert say(words.seconds(given)) == expected


@pytest.mark.parametrize(
    ("given", "expected"), [(None, "–"), (999, "999 B"), (1_420_000, "1.42 MB"), (31e6, "31 MB"), (2.5e9, "2.5 GB")]
)
def test_size(given: float | None, expected: str) -> None:
    assert say(words.size(given)) == expected


@pytest.mark.parametrize(
    ("value", "metric", "expected"),
    [(0.8741, "accuracy", "87.4 %"), (0.8741, "auroc", "0.874"), (0.71, "mae", "0.710"), (None, "mae", "–")],
)
def test_quality(value: float | None, metric: str, expected: str) -> None:
    assert say(words.quality(value, metric)) == expected


@pytest.mark.parametrize(
    ("value", "metric", "expected"),
    [(-0.007, "accuracy", "−0.7 points"), (0.02, "mae", "+0.020"), (0.0, "acc2", "±0.0 points")],
)
def test_difference(value: float, metric: str, expected: str) -> None:
    assert say(words.difference(value, metric)) == expected


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [(10.0, 2.0, "5× less"), (2.0, 5.0, "2.5× more"), (1.0, 1.001, "unchanged"), (None, 2.0, ""), (2.0, None, "")],
)
def test_times(before: float | None, after: float | None, expected: str) -> None:
    assert words.times(before, after) == expected


@pytest.mark.parametrize(
    ("before", "after", "expected"), [(10.0, 5.9, "−41 %"), (10.0, 12.0, "+20 %"), (10.0, 10.01, "±0 %"), (0, 1, "")]
)
def test_change(before: float, after: float, expected: str) -> None:
    assert say(words.change(before, after)) == expected


@pytest.mark.parametrize(
    ("value", "expected"), [(0.00005, "5.00e−05"), (1234.0, "1,234"), (12.345, "12.3"), (0, "0"), (-0.5, "−0.5")]
)
def test_number(value: float, expected: str) -> None:
    assert words.number(value) == expected


def test_an_interval_needs_both_ends() -> None:
    assert words.interval([1, 2], str) == "1 … 2"
    assert not words.interval([1, None], str)
    assert not words.interval(None, str)
