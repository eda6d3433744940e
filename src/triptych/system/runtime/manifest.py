"""What a bundle says about itself: `manifest.json`, read as untrusted input."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self, get_args

from triptych.errors import BundleError, SchemaError
from triptych.schema import Modality, Schema
from triptych.system.runtime.files import Entry, digest
from triptych.system.runtime.wiring import Engine, Point, Stage, Tensor, check_point, check_stages

FORMAT = "triptych-bundle"
VERSION = 1
MAX_MANIFEST_BYTES = 8 << 20


@dataclass(frozen=True)
class Manifest:
    """The parsed manifest.  `schema` is without tokenizers: those are files of their own, read when text comes."""

    schema: Schema
    stages: Mapping[str, Stage]
    points: tuple[Point, ...] = ()
    tolerance: float = 1e-3
    recipe: Any = None
    reports: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, Entry] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_stages(self.schema, self.stages)
        for point in self.points:
            check_point(point, self.schema, self.stages)
        if len({p.name for p in self.points}) < len(self.points):
            raise BundleError(f"the names of operating points must differ, got {[p.name for p in self.points]}")
        if not 0 < self.tolerance < math.inf:
            raise BundleError(f"tolerance must be positive and finite, got {self.tolerance}")

    def to_json(self) -> bytes:
        """The file's content, with a digest of itself."""
        record = {
            "format": FORMAT,
            "version": VERSION,
            "schema": self.schema.to_dict(),
            "stages": {name: _stage_record(stage) for name, stage in self.stages.items()},
            "points": [{k: v for k, v in dataclasses.asdict(p).items() if v is not None} for p in self.points],
            "tolerance": self.tolerance,
            "recipe": self.recipe,
            "reports": self.reports,
            "provenance": self.provenance,
            "files": {name: {"bytes": e.bytes, "sha256": e.sha256} for name, e in self.files.items()},
        }
        lines = [f'"{key}":{_compact(value)}' for key, value in {**record, "digest": _digest(record)}.items()]
        return ("{\n" + ",\n".join(lines) + "\n}\n").encode()

    @classmethod
    def from_json(cls, data: bytes) -> Self:
        """Read what `to_json` wrote.  Raises BundleError on anything else."""
        record = _parse(data)
        if record.get("format") != FORMAT:
            raise BundleError(f"manifest.json: format must be {FORMAT!r}, got {record.get('format')!r}")
        if record.get("version") != VERSION:
            raise BundleError(
                f"manifest.json: this runtime reads version {VERSION}, got {record.get('version')!r}; "
                "install the Triptych that wrote the bundle, or export it again"
            )
        if record.pop("digest", None) != _digest(record):
            raise BundleError("manifest.json: its digest does not match its content; the file is damaged")
        keys(record, {"format", "version", *(f.name for f in dataclasses.fields(cls))}, "manifest.json")
        return cls(
            schema=_schema(record["schema"]),
            stages={name: _stage(name, one) for name, one in mapping(record["stages"], "stages").items()},
            points=tuple(_point(one) for one in sequence(record["points"], "points")),
            tolerance=number(record["tolerance"], "tolerance"),
            recipe=record["recipe"],
            reports=mapping(record["reports"], "reports"),
            provenance=mapping(record["provenance"], "provenance"),
            files={name: _entry(name, one) for name, one in mapping(record["files"], "files").items()},
        )


def mapping(value: object, where: str) -> dict[str, Any]:
    """The value, if it is a JSON object."""
    if not isinstance(value, dict):
        raise BundleError(f"manifest.json: {where} must be an object, got {type(value).__name__}")
    return value


def sequence(value: object, where: str) -> list[Any]:
    """The value, if it is a JSON array."""
    if not isinstance(value, list):
        raise BundleError(f"manifest.json: {where} must be an array, got {type(value).__name__}")
    return value


def text(value: object, where: str) -> str:
    """The value, if it is a JSON string."""
    if not isinstance(value, str):
        raise BundleError(f"manifest.json: {where} must be text, got {type(value).__name__}")
    return value


def number(value: object, where: str) -> float:
    """The value, if it is a JSON number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BundleError(f"manifest.json: {where} must be a number, got {type(value).__name__}")
    return float(value)


def keys(record: Mapping[str, Any], wanted: set[str], where: str) -> None:
    """Raise BundleError unless the object has exactly these keys."""
    if record.keys() != wanted:
        raise BundleError(
            f"{where}: missing keys {sorted(wanted - record.keys())}, unknown keys {sorted(record.keys() - wanted)}"
        )


def _digest(record: Mapping[str, Any]) -> str:
    canonical = json.dumps(record, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return digest(canonical.encode())


def _compact(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


def _parse(data: bytes) -> dict[str, Any]:
    if len(data) > MAX_MANIFEST_BYTES:
        raise BundleError(f"manifest.json has {len(data)} bytes, at most {MAX_MANIFEST_BYTES} are read")
    try:
        record = json.loads(data.decode(), parse_constant=_refuse_constant, object_pairs_hook=_unique)
        json.dumps(record, allow_nan=False)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"manifest.json is not valid JSON: {error}") from error
    return mapping(record, "the document")


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) < len(pairs):
        raise ValueError(f"repeated keys among {[key for key, _ in pairs]}")
    return record


def _schema(value: object) -> Schema:
    record = mapping(value, "schema")
    for one in sequence(record.get("modalities"), "schema.modalities"):
        _check_fields(Modality, mapping(one, "a modality"))
    _check_fields(Schema, record)
    try:
        return Schema.from_dict(record)
    except (SchemaError, TypeError, ValueError) as error:
        raise BundleError(f"manifest.json: schema: {error}") from error


def _check_fields(cls: type[Any], record: Mapping[str, Any]) -> None:
    """Values must have the type of the field's default; texts where there is none."""
    for one in dataclasses.fields(cls):
        if one.name not in record or one.name == "modalities":
            continue
        value = record[one.name]
        where = f"{cls.__name__}.{one.name}"
        default = "" if one.default is dataclasses.MISSING else one.default
        if one.name == "range" or isinstance(default, tuple):
            read = number if one.name in {"center", "scale", "range"} else text
            for item in sequence(value, where):
                read(item, where)
        elif isinstance(default, str):
            text(value, where)
        elif isinstance(default, int) and not (isinstance(value, int) and not isinstance(value, bool) and value >= 0):
            raise BundleError(f"manifest.json: {where} must be a whole number, got {value!r}")
        else:
            number(value, where)


def _stage_record(stage: Stage) -> dict[str, Any]:
    record: dict[str, Any] = {
        side: {name: [t.dtype, list(t.shape)] for name, t in getattr(stage, side).items()}
        for side in ("inputs", "outputs")
    }
    return {**record, "facts": dict(stage.facts)}


def _stage(name: str, value: object) -> Stage:
    record = mapping(value, f"stage {name!r}")
    keys(record, {"inputs", "outputs", "facts"}, f"stage {name!r}")
    return Stage(
        inputs={k: _tensor(f"{name}: {k}", v) for k, v in mapping(record["inputs"], name).items()},
        outputs={k: _tensor(f"{name}: {k}", v) for k, v in mapping(record["outputs"], name).items()},
        facts=mapping(record["facts"], name),
    )


def _tensor(where: str, value: object) -> Tensor:
    pair = sequence(value, where)
    shape = sequence(pair[1], where) if len(pair) == 2 else [-1]
    if any(axis is not None and (type(axis) is not int or not 0 <= axis < 1 << 31) for axis in shape):
        raise BundleError(f"manifest.json: {where} must be [dtype, shape], got {value!r}")
    return Tensor(text(pair[0], where), tuple(shape))


def _point(value: object) -> Point:
    record = mapping(value, "an operating point")
    if unknown := record.keys() - {f.name for f in dataclasses.fields(Point)}:
        raise BundleError(f"manifest.json: unknown keys {sorted(unknown)} in an operating point")
    engine: Any = record.get("engine")
    if engine not in get_args(Engine):
        raise BundleError(f"manifest.json: engine must be one of {get_args(Engine)}, got {engine!r}")
    names = sequence(record.get("modalities"), "modalities of an operating point")
    numbers = {k: number(record[k], k) for k in ("threshold", "p50_s", "quality") if k in record}
    return Point(
        name=text(record.get("name"), "name of an operating point"),
        modalities=tuple(text(name, "a modality's name") for name in names),
        engine=engine,
        exit=text(record["exit"], "exit") if "exit" in record else None,
        **numbers,
    )


def _entry(name: str, value: object) -> Entry:
    record = mapping(value, f"file {name!r}")
    keys(record, {"bytes", "sha256"}, f"file {name!r}")
    size = record["bytes"]
    if type(size) is not int or size < 0:
        raise BundleError(f"manifest.json: bytes of {name!r} must be a whole number, got {size!r}")
    return Entry(size, text(record["sha256"], f"sha256 of {name!r}"))
