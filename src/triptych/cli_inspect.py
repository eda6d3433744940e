"""`triptych inspect`: what a dataset, a saved model or a bundle is.  A bundle is looked at without torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from triptych.cli_show import Screen
from triptych.measure.report import Report
from triptych.report import words
from triptych.system.runtime.check import row_shape

if TYPE_CHECKING:
    from triptych.schema import Schema
    from triptych.system.runtime import Manifest

HIDDEN = frozenset({"tokenizer", "center", "scale"})
_READ = frozenset({"metric", "parts", "subsets", "energy_j", "energy_source"})


def look(path: str, screen: Screen) -> Mapping[str, Any]:
    """Find out what stands at a path, show it and return it."""
    folder = Path(path)
    if (folder / "manifest.json").is_file():
        return _bundle(folder, screen)
    if (folder / "model.json").is_file():
        return _model(folder, screen)
    return _dataset(path, screen)


def _bundle(folder: Path, screen: Screen) -> dict[str, Any]:
    from triptych.system.runtime import Bundle

    bundle = Bundle.load(folder, verify=True, check_golden=True)
    manifest = bundle.manifest
    screen.say(f"bundle {folder}: {len(manifest.files)} files match their hashes, golden answers match")
    _show_schema(manifest.schema, screen)
    points = [dataclasses.asdict(point) for point in manifest.points]
    metric = manifest.schema.metric
    rows = [
        (p.name, ", ".join(p.modalities), p.engine, words.seconds(p.p50_s), words.quality(p.quality, metric))
        for p in manifest.points
    ]
    if rows:
        screen.table(("operating point", "modalities", "engine", "p50", "quality"), rows)
    files = {name: {"bytes": entry.bytes, "sha256": entry.sha256} for name, entry in sorted(manifest.files.items())}
    screen.table(("file", "bytes"), [(name, f"{entry['bytes']:,}") for name, entry in files.items()])
    told = screen.ledger(_own_report(manifest), "what each modality costs and is worth")
    return {
        "kind": "bundle",
        "verified": True,
        "size_bytes": bundle.size_bytes,
        "bundle_bytes": bundle.bundle_bytes,
        "schema": brief(manifest.schema),
        "stages": {name: dict(stage.facts) for name, stage in manifest.stages.items()},
        "points": points,
        "recipe": manifest.recipe,
        "provenance": manifest.provenance,
        "files": files,
        **told,
    }


def _own_report(manifest: Manifest) -> Report:
    """The bundle's own measurement, the last that was stored; of an unmeasured one what its graphs tell of cost."""
    stored = Report.from_dict({"parts": {n: _ledger_part(r) for n, r in manifest.reports.items()}}).parts
    last = next(reversed(list(stored.values())), Report())
    if last.parts:
        return last
    facts = {name: manifest.stages[f"{name}.encode"].facts for name in manifest.schema.names if _staged(manifest, name)}
    facts |= {"decide": manifest.stages["decide"].facts} if "decide" in manifest.stages else {}
    known = {"flops": "flops", "size_bytes": "weight_bytes"}
    parts = {n: {k: one[f] for k, f in known.items() if one.get(f) is not None} for n, one in facts.items()}
    return Report.from_dict({"metric": manifest.schema.metric, "parts": {n: one for n, one in parts.items() if one}})


def _ledger_part(record: Any) -> Any:
    """A stored report as far as the ledger reads it."""
    return {k: v for k, v in record.items() if k in _READ} if isinstance(record, Mapping) else record


def _staged(manifest: Manifest, name: str) -> bool:
    return f"{name}.encode" in manifest.stages


def _model(folder: Path, screen: Screen) -> dict[str, Any]:
    from triptych.model import load_model

    model = load_model(folder)
    params, flops = model.parameters_by_part(), model.flops()
    screen.say(f"saved model {folder}")
    _show_schema(model.schema, screen)
    rows = [(part, f"{params[part]:,}", words.count(flops.get(part))) for part in params]
    screen.table(
        ("part", "parameters", "FLOPs"), [*rows, ("all", f"{sum(params.values()):,}", words.count(sum(flops.values())))]
    )
    return {
        "kind": "model",
        "schema": brief(model.schema),
        "params": sum(params.values()),
        "flops": sum(flops.values()),
        "parts": {part: {"params": params[part], "flops": flops.get(part)} for part in params},
        "recipe": list(model.config.recipe),
    }


def _dataset(path: str, screen: Screen) -> dict[str, Any]:
    from triptych.data.read import load_data

    data = load_data(path)
    screen.say(f"dataset {data.name}")
    _show_schema(data.schema, screen)
    splits = {name: {"rows": len(split), "dropped": dict(split.dropped)} for name, split in data.splits.items()}
    screen.table(("split", "rows"), [(name, f"{split['rows']:,}") for name, split in splits.items()])
    return {
        "kind": "dataset",
        "name": data.name,
        "fingerprint": data.fingerprint,
        "schema": brief(data.schema),
        "splits": splits,
    }


def brief(schema: Schema) -> dict[str, Any]:
    """A schema without tokenizer documents and per-channel figures."""
    record = schema.to_dict()
    modalities = [{k: v for k, v in m.items() if k not in HIDDEN} for m in record["modalities"]]
    return {**record, "modalities": modalities}


def _show_schema(schema: Schema, screen: Screen) -> None:
    rows = [(m.name, m.kind, " × ".join(str(n or "any") for n in row_shape(m))) for m in schema.modalities]
    screen.table(("modality", "kind", "one row"), rows)
    screen.say(f"{_goal(schema)}, judged by {words.METRICS.get(schema.metric, schema.metric)}")


def _goal(schema: Schema) -> str:
    if schema.task == "retrieval":
        return f"retrieval between {' and '.join(schema.pair)}"
    goal = (
        f"{len(schema.classes)} classes" if schema.classes else f"range {schema.range}" if schema.range else "a value"
    )
    return f"{schema.task} of {schema.target!r} ({goal})"
