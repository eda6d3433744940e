"""From raw findings to a report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triptych.measure import clock, quality
from triptych.measure.lane import Taken
from triptych.measure.report import Report
from triptych.measure.shapley import Earned, qualities, shapley
from triptych.schema import Schema


def report_of(
    taken: Taken,
    reference: Taken,
    targets: NDArray[Any],
    schema: Schema,
    *,
    rounds: int,
    threads: int,
    floor_bytes: int | None,
    seed: int = 0,
) -> Report:
    """Turn raw findings into a report, compared to those of the first candidate (which may be itself).

    targets: (rows,)
    """
    generator = np.random.default_rng(seed)
    speed, speed_interval = clock.ratio(taken.samples_s, reference.samples_s, rounds, generator=generator)
    against = quality.compare(taken.outputs, reference.outputs, targets, schema, generator=generator)
    rows = int(quality.usable(targets, schema).sum())
    total = taken.peak_bytes_total
    return Report(
        metric=schema.metric,
        quality=quality.quality(taken.outputs, targets, schema),
        quality_interval=quality.quality_interval(taken.outputs, targets, schema, generator=generator),
        details=quality.details(taken.outputs, targets, schema),
        rows=rows,
        ignored=len(targets) - rows,
        drop=against.drop,
        drop_interval=against.interval,
        drop_p=against.p,
        loyalty=quality.loyalty(taken.outputs, reference.outputs, schema),
        p50_s=clock.percentile(taken.samples_s, 50),
        p95_s=clock.percentile(taken.samples_s, 95),
        p50_ratio=speed,
        p50_ratio_interval=speed_interval,
        samples_s=tuple(taken.samples_s),
        rounds=rounds,
        threads=threads,
        peak_bytes=None if total is None or floor_bytes is None else max(0, total - floor_bytes),
        peak_bytes_total=total,
        floor_bytes=floor_bytes,
        size_bytes=taken.size_bytes,
        bundle_bytes=taken.bundle_bytes,
        flops=_flops(taken),
        params=taken.params,
        routers=taken.routers,
        energy_j=taken.energy_j,
        energy_source=taken.energy_source,
        subsets=_qualities(taken, targets, schema),
        parts=_stages(taken) | _modalities(taken, targets, schema, generator),
    )


def _flops(taken: Taken) -> int | None:
    """The mean of what the rows executed, where they differ; else the sum of the stages."""
    if taken.executed:
        return round(float(np.mean(taken.executed)))
    return sum(taken.flops.values()) if taken.flops else None


def _stages(taken: Taken) -> dict[str, Report]:
    samples = {stage: tuple(found) for stage, found in taken.parts_s.items()}
    stages = {**taken.parts_s, **taken.flops}
    return {stage: Report(**_cost(taken, stage), samples_s=samples.get(stage)) for stage in stages}


def _cost(taken: Taken, stage: str) -> dict[str, Any]:
    samples = taken.parts_s.get(stage)
    timed = {"p50_s": clock.percentile(samples, 50), "p95_s": clock.percentile(samples, 95)} if samples else {}
    return {**timed, "flops": taken.flops.get(stage), "size_bytes": taken.weight_bytes.get(stage)}


def _modalities(
    taken: Taken, targets: NDArray[Any], schema: Schema, generator: np.random.Generator
) -> dict[str, Report]:
    """Cost of each modality's encoder, what the quality loses without the modality, and its Shapley value."""
    stages = {**taken.parts_s, **taken.flops}
    encoders = {stage.removesuffix(".encode") for stage in stages if stage.endswith(".encode")}
    known = [name for name in schema.names if name in encoders or _left(taken, name) in taken.subsets]
    worth = {name: _worth(taken, name, targets, schema, generator) for name in known}
    earned = _earned(taken, targets, schema, generator)
    return {
        name: Report(
            **_cost(taken, f"{name}.encode"),
            **worth[name],
            **_shapley(earned.get(name)),
            **_used(taken.shares.get(name)),
        )
        for name in known
    }


def _left(taken: Taken, gone: str) -> tuple[str, ...]:
    return tuple(name for name in taken.names if name != gone)


def _used(shares: Sequence[float] | None) -> dict[str, Any]:
    """Mean share of tokens, and of rows that went without.  shares: of the rows that have the modality"""
    return {"kept": float(np.mean(shares)), "skipped": float(np.mean(np.equal(shares, 0)))} if shares else {}


def _worth(
    taken: Taken, name: str, targets: NDArray[Any], schema: Schema, generator: np.random.Generator
) -> dict[str, Any]:
    """Quality with and without a modality, on the rows that something is left of."""
    if _left(taken, name) not in taken.subsets:
        return {}
    found = taken.subsets[_left(taken, name)]
    answered = np.isfinite(found).all(axis=1)
    without, full, kept = found[answered], taken.outputs[taken.asked][answered], targets[taken.asked][answered]
    if not quality.defined(kept, schema):
        return {}
    against = quality.compare(without, full, kept, schema, generator=generator)
    return {
        "metric": schema.metric,
        "quality": quality.quality(without, kept, schema),
        "rows": int(quality.usable(kept, schema).sum()),
        "worth": against.drop,
        "worth_interval": against.interval,
    }


def _answers(taken: Taken) -> dict[tuple[str, ...], NDArray[np.float64]]:
    return {**taken.subsets, taken.names: taken.outputs[taken.asked]}


def _qualities(taken: Taken, targets: NDArray[Any], schema: Schema) -> dict[str, float]:
    """Quality of every subset that was asked; nothing where none was, or where the rows leave it undefined."""
    if not taken.subsets or not quality.defined(targets[taken.asked], schema):
        return {}
    return qualities(_answers(taken), targets[taken.asked], schema)


def _earned(taken: Taken, targets: NDArray[Any], schema: Schema, generator: np.random.Generator) -> dict[str, Earned]:
    if taken.orders is None or not quality.defined(targets[taken.asked], schema):
        return {}
    return shapley(_answers(taken), targets[taken.asked], schema, taken.orders, generator=generator)


def _shapley(earned: Earned | None) -> dict[str, Any]:
    return {} if earned is None else {"shapley": earned.value, "shapley_interval": earned.interval}
