"""The modality ledger: what each modality costs, what it earns, and the advice that follows.

Everything comes from the `parts` of one `Report`; what was not measured is None here and 'not measured' in words.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from triptych.measure.report import Interval, Report

SHARES = frozenset({"accuracy", "acc2"})  # metrics that are told in points, hundredths
MEASURES = {"p50_s": "time", "flops": "FLOPs", "size_bytes": "weights"}  # of cost, the first that is known is taken
NOT_MEASURED = "not measured"


@dataclass(frozen=True, slots=True)
class Line:
    """One modality.  None means not measured, never zero.

    p50_s, flops, size_bytes: seconds, operations and weights of its own encoder
    share: its part of the cost of all encoders and of what follows them;  share_of: 'time', else 'FLOPs' or 'weights'
    energy_share, energy_j: of a prediction's energy, in joules where those were measured;  energy_source: where from
    alone: quality with nothing else
    shapley, shapley_interval: its Shapley value, what it earns;  worth, worth_interval: what is lost without it
    kept, skipped: share of its tokens that a gate lets through, and of the rows that a gate answers without it
    """

    name: str
    p50_s: float | None = None
    flops: int | None = None
    size_bytes: int | None = None
    share: float | None = None
    share_of: str | None = None
    energy_share: float | None = None
    energy_j: float | None = None
    energy_source: str | None = None
    alone: float | None = None
    shapley: float | None = None
    shapley_interval: Interval | None = None
    worth: float | None = None
    worth_interval: Interval | None = None
    kept: float | None = None
    skipped: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, without what was not measured."""
        return {k: v for k, v in dataclasses.asdict(self).items() if v is not None}


def ledger(report: Report) -> tuple[Line, ...]:
    """One line per modality of a report; none where its `parts` name no modality."""
    names = modalities(report)
    shares = {field: _shares(report, names, field) for field in MEASURES}
    field = next((field for field, found in shares.items() if found), None)
    energy = next((f for f in ("p50_s", "flops") if shares[f]), None)
    return tuple(
        Line(
            name=name,
            **{key: getattr(report.parts[name], key) for key in MEASURES},
            share=shares[field][name] if field else None,
            share_of=MEASURES[field] if field else None,
            **_energy(report, shares[energy][name], MEASURES[energy]) if energy else {},
            alone=report.subsets.get(name),
            **{key: getattr(report.parts[name], key) for key in _WORTH},
        )
        for name in names
    )


_WORTH = ("shapley", "shapley_interval", "worth", "worth_interval", "kept", "skipped")


def modalities(report: Report) -> tuple[str, ...]:
    """Names among a report's parts that are modalities and not stages."""
    return tuple(name for name in report.parts if "." not in name and name not in {"decide", "fused"})


def _shares(report: Report, names: Sequence[str], field: str) -> dict[str, float]:
    """Each modality's part of the whole; empty unless every stage is known."""
    rest = report.parts.get("decide", Report())
    costs = [getattr(part, field) for part in (*(report.parts[name] for name in names), rest)]
    if not names or None in costs or sum(costs) <= 0:
        return {}
    return {name: cost / sum(costs) for name, cost in zip(names, costs, strict=False)}


def _energy(report: Report, share: float, of: str) -> dict[str, Any]:
    """A processor's energy is divided as its time, or else its operations: an estimate, and said to be one."""
    told = f"estimated: its share of the stages' {of}"
    if report.energy_j is None:
        return {"energy_share": share, "energy_source": f"{told}; joules {report.energy_source or NOT_MEASURED}"}
    source = f"{told}, of the prediction's joules ({report.energy_source})"
    return {"energy_share": share, "energy_j": share * report.energy_j, "energy_source": source}


def advice(lines: Sequence[Line], metric: str) -> tuple[str, ...]:
    """A sentence for each modality, the dearest first, and a warning where several look dispensable.

    A modality may go where the interval of what is lost without it holds zero: what it earns in a Shapley sense may
    be high all the same, if another one can stand in for it.
    """
    if all(line.shapley is None and line.worth is None for line in lines):
        return ("What single modalities earn was not measured.",) if lines else ()
    ranked = sorted(lines, key=lambda line: -(line.share or 0.0))
    told = [sentence(line, metric) for line in ranked]
    if sum(dispensable(line) for line in lines) > 1:
        told.append("Leave out one at a time: modalities that stand in for each other look dispensable one by one.")
    return tuple(told)


def dispensable(line: Line) -> bool:
    """Whether the rows show no loss without it."""
    return line.worth_interval is not None and line.worth_interval[0] <= 0


def sentence(line: Line, metric: str) -> str:
    """Such as 'touch costs 31 % of the time and earns 0.2 ± 0.6 points; without it 0.1 ± 0.5 points are lost: …'."""
    cost = f"{100 * line.share:.0f} % of the {line.share_of}" if line.share is not None else f"a share {NOT_MEASURED}"
    start = f"{line.name} costs {cost} and earns {points(line.shapley, line.shapley_interval, metric)}"
    if line.worth is None:
        return f"{start}; what is lost without it was {NOT_MEASURED}."
    lost = points(line.worth, line.worth_interval, metric)
    return f"{start}; without it {lost} are lost: {_verdict(line)}."


def _verdict(line: Line) -> str:
    if not dispensable(line):
        return "keep it" if line.worth_interval is not None else "not enough is known to advise"
    if line.worth_interval is not None and line.worth_interval[1] < 0:
        return "the answers are better without it"
    if line.shapley_interval is not None and line.shapley_interval[0] > 0:
        return "others can stand in for it, try without it"
    return "try without it"


def points(value: float | None, interval: Interval | None, metric: str) -> str:
    """'0.2 ± 0.6 points' of a share, '0.012 ± 0.004' of other metrics; ± is the farther end of the interval."""
    if value is None:
        return NOT_MEASURED
    scale, digits, unit = (100, 1, " points") if metric in SHARES else (1, 3, f" ({metric})")
    spread = max(value - interval[0], interval[1] - value) if interval else None
    text = f"{scale * value:.{digits}f}" + (f" ± {scale * spread:.{digits}f}" if spread is not None else "")
    return f"{text.replace('-', '−')}{unit}"
