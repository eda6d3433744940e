"""A budget reads what people write, and says by how much it is exceeded."""

from __future__ import annotations

import pytest

from triptych.errors import BudgetError
from triptych.measure.report import Report
from triptych.search.budget import Budget


def test_every_limit_reads_in_its_unit() -> None:
    budget = Budget.parse("p50=5ms,size=2MB,memory=40MiB,energy=3mJ,drop=0.5,quality=0.9")
    assert budget == Budget(0.005, 2e6, 40 * 2**20, 0.003, 0.005, 0.9)


def test_an_empty_budget_only_guards_quality() -> None:
    assert Budget.parse("") == Budget()
    assert Budget().limits == {}
    assert Budget().max_drop == 0.005


def test_shares_resolve_against_the_reference() -> None:
    budget = Budget.parse("p50=10%,size=5%").against(Report(p50_s=0.02, size_bytes=1000))
    assert budget.limits == {"p50_s": pytest.approx(0.002), "size_bytes": pytest.approx(50)}


def test_a_share_of_something_unmeasured_is_an_error() -> None:
    with pytest.raises(BudgetError, match=r"p50_s is limited to 10% .* not measured"):
        Budget.parse("p50=10%").against(Report(size_bytes=1))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("speed=5ms", "unknown limit 'speed'"),
        ("p50=5", "write for example p50=5s"),
        ("size=2 parsecs", "write for example size=5b"),
        ("drop=10%", "write for example drop=5"),
        ("p50", "cannot read p50"),
    ],
)
def test_what_cannot_be_read_is_named_with_a_remedy(text: str, said: str) -> None:
    with pytest.raises(BudgetError, match=said):
        Budget.parse(text)


def test_excess_is_a_share_of_the_limit() -> None:
    budget = Budget(p50_s=0.01, size_bytes=100, max_drop=0.01)
    report = Report(p50_s=0.015, size_bytes=50, drop=0.03)
    assert budget.excess(report) == {
        "p50_s": pytest.approx(0.5),
        "size_bytes": pytest.approx(-0.5),
        "drop": pytest.approx(0.02),
    }


def test_a_limit_that_was_not_measured_is_an_error_with_the_reason() -> None:
    with pytest.raises(BudgetError, match=r"energy_j .* not measured \(no RAPL\)"):
        Budget(energy_j=1.0).excess(Report(energy_source="no RAPL"))


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_limits_are_finite_and_not_negative(value: float) -> None:
    with pytest.raises(BudgetError, match="p50_s must be"):
        Budget(p50_s=value)


def test_where_an_error_is_the_quality_its_limit_is_from_above() -> None:
    budget = Budget(max_drop=None, min_quality=0.5)
    assert budget.excess(Report(metric="mae", quality=0.4))["quality"] == pytest.approx(-0.1)
    assert budget.excess(Report(metric="accuracy", quality=0.4))["quality"] == pytest.approx(0.1)
