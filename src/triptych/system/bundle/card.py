"""The model card: what a bundle is for, what was measured, and where its limits are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from triptych.measure.ledger import NOT_MEASURED, Line, advice, ledger, points
from triptych.measure.report import Report
from triptych.schema import Modality, Schema
from triptych.system.runtime.wiring import Point

_UNKNOWN = NOT_MEASURED


def model_card(
    schema: Schema,
    *,
    reports: Mapping[str, Report] | None = None,
    points: Sequence[Point] = (),
    recipe: Sequence[Mapping[str, Any]] = (),
    provenance: Mapping[str, Any] | None = None,
    purpose: str = "",
    data: str = "",
    licence: str = "",
    limits: Sequence[str] = (),
) -> str:
    """Markdown text of a model card.  What is not given is said to be unknown, never left out.

    reports: by candidate, the original first; recipe: techniques in the order applied
    """
    sections = {
        "Purpose": purpose or f"{_goal(schema)}. No other use has been tested.",
        "Inputs and output": "\n".join([*(_input(m) for m in schema.modalities), _output(schema)]),
        "Measured": _measured(reports or {}, schema),
        "What each modality costs and is worth": _ledger(reports or {}, schema),
        "Operating points": _points(points),
        "How it was made": "\n".join(_step(step) for step in recipe) or "Trained; not compressed.",
        "Data": data or "Not stated by whoever exported this bundle.",
        "Licence": licence or "Not stated by whoever exported this bundle; ask before you use it.",
        "Limits": "\n".join(f"- {line}" for line in (*limits, *_standard_limits(schema))),
        "Provenance": "\n".join(f"- {k}: {v}" for k, v in (provenance or {}).items()) or "Not recorded.",
    }
    body = "\n\n".join(f"## {title}\n\n{text}" for title, text in sections.items())
    return f"# {schema.name}\n\n{body}\n"


def _goal(schema: Schema) -> str:
    if schema.task == "retrieval":
        return f"Find {_list(schema.pair[1:])} by {_list(schema.pair[:1])}, and the other way round"
    return f"Predict `{schema.target}` from {_list(schema.names)}"


def _list(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _input(modality: Modality) -> str:
    match modality.kind:
        case "image":
            what = f"{modality.width}x{modality.height} pixels, {modality.channels} channels; other sizes are resized"
        case "audio":
            seconds = modality.max_samples / modality.sample_rate if modality.sample_rate else 0
            what = f"{modality.sample_rate} Hz, up to {seconds:.3g} s; longer clips are cropped"
        case "text":
            what = f"up to {modality.max_tokens} tokens; longer texts are cropped"
        case "series":
            what = f"up to {modality.frames} frames of {modality.channels or len(modality.fields)} channels"
        case "table":
            what = f"the fields {_list(modality.fields)}"
        case "video":
            size = f"{modality.width}x{modality.height} pixels, {modality.channels} channels"
            what = f"{modality.frames} frames of {size}; frames are taken evenly and resized"
        case "points":
            what = f"up to {modality.max_points} points of {modality.channels} features; larger clouds are thinned"
        case "codes":
            what = f"up to {modality.max_tokens} tokens of {modality.channels} codes below {modality.vocabulary - 1}"
    return f"- `{modality.name}`: {modality.kind}, {what}"


def _output(schema: Schema) -> str:
    if schema.task == "retrieval":
        return "- output: a vector of length one for each input; the closer two of them, the likelier a pair"
    if schema.task == "classification":
        return f"- output: a probability for each of {_list(schema.classes)}"
    between = f", trained on values from {schema.range[0]:g} to {schema.range[1]:g}" if schema.range else ""
    return f"- output: a value for `{schema.target}`{between}"


def _measured(reports: Mapping[str, Report], schema: Schema) -> str:
    if not reports:
        return f"Nothing was measured when this bundle was exported; quality, latency and memory are {_UNKNOWN}."
    titles = ("", schema.metric, "drop", "median", "95th percentile", "peak memory above the floor", "size")
    rows = [titles, ("---",) * len(titles), *((name, *_figures(report)) for name, report in reports.items())]
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    details = [f"`{name}`: {_details(report)}" for name, report in reports.items() if report.details]
    places = [f"`{name}`: {_place(report)}" for name, report in reports.items() if report.environment]
    return "\n\n".join([table, *details, *places])


def _figures(report: Report) -> tuple[str, ...]:
    return (
        _number(report.quality, ".4g") + _interval(report.quality_interval),
        _number(report.drop, ".3g") + _interval(report.drop_interval),
        _number(report.p50_s, ".3g", scale=1e3, unit=" ms"),
        _number(report.p95_s, ".3g", scale=1e3, unit=" ms"),
        _number(report.peak_bytes, ".3g", scale=1e-6, unit=" MB"),
        _number(report.size_bytes, ".3g", scale=1e-6, unit=" MB"),
    )


def _details(report: Report) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in report.details.items())


def _number(value: float | None, form: str, *, scale: float = 1.0, unit: str = "") -> str:
    return _UNKNOWN if value is None else f"{value * scale:{form}}{unit}"


def _interval(pair: tuple[float, float] | None) -> str:
    return "" if pair is None else f" ({pair[0]:.3g} to {pair[1]:.3g})"


def _place(report: Report) -> str:
    return ", ".join(f"{k} {v}" for k, v in report.environment.items() if isinstance(v, str | int | float))


def _ledger(reports: Mapping[str, Report], schema: Schema) -> str:
    """Of the last candidate, which is the one that the bundle holds."""
    lines = ledger(list(reports.values())[-1]) if reports else ()
    if not lines:
        return f"What single modalities cost and are worth was {_UNKNOWN}."
    titles = ("", "median", "FLOPs", "weights", "share of the cost", "share of the energy", "earns", "lost without it")
    rows = [titles, ("---",) * len(titles), *(_ledger_row(line, schema) for line in lines)]
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    sources = dict.fromkeys(line.energy_source for line in lines if line.energy_source)
    about = "Earns is the Shapley value of the quality, ± its 95 % bootstrap interval over rows."
    energy = f" Energy: {'; '.join(sources)}." if sources else ""
    sentences = "\n".join(f"- {one}" for one in advice(lines, schema.metric))
    return f"{table}\n\n{about}{energy}\n\n{sentences}"


def _ledger_row(line: Line, schema: Schema) -> tuple[str, ...]:
    return (
        line.name,
        _number(line.p50_s, ".3g", scale=1e3, unit=" ms"),
        _number(line.flops, ".3g", scale=1e-6, unit=" M"),
        _number(line.size_bytes, ".3g", scale=1e-3, unit=" kB"),
        _number(line.share, ".0f", scale=100, unit=f" % of the {line.share_of}"),
        _number(line.energy_share, ".0f", scale=100, unit=" %"),
        points(line.shapley, line.shapley_interval, schema.metric),
        points(line.worth, line.worth_interval, schema.metric),
    )


def _points(points: Sequence[Point]) -> str:
    if not points:
        return "None were measured; every prediction uses all that is present."
    rows = [("name", "modalities", "graphs", "median", "quality"), ("---",) * 5]
    for point in points:
        median = _number(point.p50_s, ".3g", scale=1e3, unit=" ms")
        rows.append((point.name, ", ".join(point.modalities), point.engine, median, _number(point.quality, ".4g")))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _step(step: Mapping[str, Any]) -> str:
    name = step.get("technique", step.get("name", "step"))
    knobs = ", ".join(f"{k}={v}" for k, v in step.items() if k not in {"technique", "name"})
    return f"1. {name}({knobs})"


def _standard_limits(schema: Schema) -> tuple[str, ...]:
    retrieval = schema.task == "retrieval"
    missing = "any subset of the inputs is accepted, but quality without some of them is lower"
    space = "vectors of different bundles, or of different exports, must not be compared"
    sure = "probabilities are the network's own and were not calibrated"
    timing = "latency and memory hold for the machine and the thread count named above"
    return (space if retrieval else missing, *((sure,) if schema.task == "classification" else ()), timing)
