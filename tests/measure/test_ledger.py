"""The ledger by hand: shares, energy, and the advice that the figures give."""

import pytest

from triptych.measure.ledger import advice, ledger, points, sentence
from triptych.measure.report import Report

TOUCH = {"worth": 0.001, "worth_interval": (-0.005, 0.006), "shapley": 0.002, "shapley_interval": (-0.004, 0.008)}
VIEW = {"worth": 0.2, "worth_interval": (0.15, 0.26), "shapley": 0.3, "shapley_interval": (0.25, 0.36)}


def report(touch=TOUCH, view=VIEW, **fields):
    parts = {
        "touch.encode": Report(p50_s=0.0031),
        "touch": Report(p50_s=0.0031, flops=10, size_bytes=400, **touch),
        "view": Report(p50_s=0.0050, flops=30, size_bytes=100, **view),
        "decide": Report(p50_s=0.0019, flops=60, size_bytes=500),
        "fused": Report(p50_s=0.0090),
    }
    return Report(**{"metric": "accuracy", "parts": parts, "subsets": {"": 0.1, "touch": 0.4}, **fields})


def test_shares_by_hand():
    touch, view = ledger(report())
    assert (touch.name, touch.share_of, touch.alone) == ("touch", "time", 0.4)
    assert (touch.share, view.share) == (pytest.approx(0.31), pytest.approx(0.5))  # of 3.1 + 5.0 + 1.9 ms
    assert (touch.shapley, view.worth, view.alone) == (0.002, 0.2, None)


def test_cost_is_told_by_operations_then_by_weights_where_no_time_was_taken():
    untimed = {n: Report(flops=p.flops, size_bytes=p.size_bytes) for n, p in report().parts.items() if p.flops}
    touch, view = ledger(Report(parts=untimed))
    assert (touch.share, touch.share_of, view.share) == (pytest.approx(0.1), "FLOPs", pytest.approx(0.3))
    weighed = {name: Report(size_bytes=part.size_bytes) for name, part in untimed.items()}
    touch, view = ledger(Report(parts=weighed))
    assert (touch.share, touch.share_of, touch.energy_share) == (pytest.approx(0.4), "weights", None)
    lines = ledger(Report(parts={**weighed, "decide": Report()}))
    assert [(line.share, line.share_of) for line in lines] == [(None, None)] * 2


def test_energy_is_an_estimate_with_its_provenance_and_joules_only_where_measured():
    (line, _) = ledger(report(energy_source="unavailable: no counters"))
    assert (line.energy_share, line.energy_j) == (pytest.approx(0.31), None)
    assert line.energy_source == "estimated: its share of the stages' time; joules unavailable: no counters"
    (line, _) = ledger(report(energy_j=0.2, energy_source="measured: RAPL package-0"))
    assert line.energy_j == pytest.approx(0.062)
    assert "measured: RAPL package-0" in line.energy_source


def test_what_was_not_measured_is_none_and_is_told_as_such():
    (line,) = ledger(Report(parts={"view": Report()}))
    assert line.to_dict() == {"name": "view"}
    told = sentence(line, "accuracy")
    assert told == "view costs a share not measured and earns not measured; what is lost without it was not measured."
    assert advice((line,), "accuracy") == ("What single modalities earn was not measured.",)
    assert ledger(Report()) == ()
    assert advice((), "accuracy") == ()


def test_the_advice_by_hand():
    first, second = advice(ledger(report()), "accuracy")
    assert first == (
        "view costs 50 % of the time and earns 30.0 ± 6.0 points; without it 20.0 ± 6.0 points are lost: keep it."
    )
    assert second == (
        "touch costs 31 % of the time and earns 0.2 ± 0.6 points; without it 0.1 ± 0.6 points are lost: try without it."
    )


def test_a_modality_that_another_can_stand_in_for_earns_and_may_still_go():
    twin = {**TOUCH, "shapley": 0.2, "shapley_interval": (0.1, 0.3)}
    first, second, warning = advice(ledger(report(touch=twin, view=twin)), "accuracy")
    for one in (first, second):
        assert one.endswith("others can stand in for it, try without it.")
    assert warning.startswith("Leave out one at a time")
    harmful = {"worth": -0.1, "worth_interval": (-0.2, -0.05)}
    assert advice(ledger(report(touch=harmful)), "accuracy")[1].endswith("the answers are better without it.")


def test_points_are_of_shares_only():
    assert points(-0.012, (-0.02, 0.0), "accuracy") == "−1.2 ± 1.2 points"
    assert points(0.012, (0.01, 0.02), "auroc") == "0.012 ± 0.008 (auroc)"
    assert points(0.012, None, "mae") == "0.012 (mae)"
