"""From raw findings to a report."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from triptych.measure import clock, quality
from triptych.measure.lane import Taken
from triptych.measure.report import Report
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
        flops=sum(taken.flops.values()) if taken.flops else None,
        params=taken.params,
        routers=taken.routers,
        energy_j=taken.energy_j,
        energy_source=taken.energy_source,
        parts=_stages(taken) | _modalities(taken, targets, schema, generator),
    )


def _stages(taken: Taken) -> dict[str, Report]:
    samples = {stage: tuple(found) for stage, found in taken.parts_s.items()}
    stages = {**taken.parts_s, **taken.flops}
    return {stage: Report(**_cost(taken, stage), samples_s=samples.get(stage)) for stage in stages}


def _cost(taken: Taken, stage: str) -> dict[str, Any]:
    samples = taken.parts_s.get(stage)
    timed = {"p50_s": clock.percentile(samples, 50), "p95_s": clock.percentile(samples, 95)} if samples else {}
    return {**timed, "flops": taken.flops.get(stage)}


def _modalities(
    taken: Taken, targets: NDArray[Any], schema: Schema, generator: np.random.Generator
) -> dict[str, Report]:
    """Cost of each modality's encoder, and what the quality loses without the modality."""
    encoders = {
        stage.removesuffix(".encode") for stage in {**taken.parts_s, **taken.flops} if stage.endswith(".encode")
    }
    names = [name for name in schema.names if name in encoders or name in taken.without]
    return {
        name: Report(**_cost(taken, f"{name}.encode"), **_worth(taken, name, targets, schema, generator))
        for name in names
    }


def _worth(
    taken: Taken, name: str, targets: NDArray[Any], schema: Schema, generator: np.random.Generator
) -> dict[str, Any]:
    """Quality with and without a modality, on the rows that something is left of."""
    if name not in taken.without:
        return {}
    answered = np.isfinite(taken.without[name]).all(axis=1)
    without, full, kept = taken.without[name][answered], taken.outputs[answered], targets[answered]
    if not quality.defined(kept, schema):
        return {}
    found = quality.compare(without, full, kept, schema, generator=generator)
    return {
        "metric": schema.metric,
        "quality": quality.quality(without, kept, schema),
        "rows": int(quality.usable(kept, schema).sum()),
        "worth": found.drop,
        "worth_interval": found.interval,
    }
