"""dataset.toml: what a user declares about a dataset, read strictly and written back."""

from __future__ import annotations

import dataclasses
import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from triptych.errors import DataError, SchemaError
from triptych.schema import METRICS, Metric, Modality, Schema, Task

_INFORMAL = {"encoding", "language", "dtype", "missing", "sensor", "scale", "unit", "note", "title"}
_KEYS = {
    "image": {"height", "width", "channels"},
    "audio": {"sample_rate", "channels", "max_samples"},
    "text": {"max_tokens"},
    "series": {"channels", "rate_hz", "frames", "channel_names"},
    "table": {"fields"},
    "video": {"frames", "height", "width", "channels"},
    "points": {"channels", "max_points", "channel_names"},
    "codes": {"channels", "max_tokens", "vocabulary"},
}
_WHOLE = {"height", "width", "channels", "sample_rate", "max_samples", "max_tokens", "frames"}
_WHOLE |= {"max_points", "vocabulary"}
_TYPES = {"column": str, "task": str, "metric": str, "positive": str, "classes": list, "range": list, "shares": list}


@dataclass(frozen=True)
class Declaration:
    """A dataset.toml: the schema before measuring, and how the rows are stored and split."""

    name: str
    task: Task
    metric: Metric
    target: str
    modalities: tuple[Modality, ...]
    classes: tuple[str, ...] = ()
    range: tuple[float, float] | None = None
    positive: str = ""
    pair: tuple[str, ...] = ()  # retrieval: names of the query's and the target's modality
    group: str = ""
    file: str = ""  # one file that holds every split
    partition: Mapping[str, Any] = field(default_factory=dict)  # how that file is split
    about: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def schema(self, modalities: tuple[Modality, ...], *, center: float, scale: float) -> Schema:
        """The schema with what was measured on train."""
        return Schema(
            name=self.name,
            modalities=modalities,
            target=self.target,
            task=self.task,
            metric=self.metric,
            classes=self.classes,
            range=self.range,
            positive=self.positive,
            center=center,
            scale=scale,
            pair=self.pair,
        )

    def paired(self, pair: Sequence[str] | None = None) -> Declaration:
        """The retrieval of one modality by another: their declaration without a target and without other modalities.

        pair: names of the query's and the target's modality; None means the declared ones, or the only two.
        Raises DataError.
        """
        names = [m.name for m in self.modalities]
        chosen = tuple(pair or self.pair or (names if len(names) == 2 else ()))
        if len(chosen) != 2 or chosen[0] == chosen[1] or not set(chosen) <= set(names):
            raise DataError(
                f"retrieval needs a pair of two different modalities of {names}, query and target, such as "
                f"pair=({names[0]!r}, {names[-1]!r}); got {list(chosen)}"
            )
        allowed = METRICS["retrieval"]
        return dataclasses.replace(
            self,
            task="retrieval",
            metric=self.metric if self.metric in allowed else allowed[0],
            target="",
            classes=(),
            range=None,
            positive="",
            pair=chosen,
            modalities=tuple(m for m in self.modalities if m.name in chosen),
        )


def read_declaration(path: Path, *, target: str | None = None, task: str | None = None) -> Declaration:
    """Read dataset.toml.  `target` picks one of `other_targets` instead of the main one; `task` may make it retrieval.

    Raises DataError.
    """
    try:
        record = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path.name} is not valid TOML: {error}") from error
    return parse_declaration(record, target=target, task=task, file=path.name)


def parse_declaration(
    record: Mapping[str, Any], *, target: str | None = None, task: str | None = None, file: str = "schema"
) -> Declaration:
    """Check the tables of a dataset.toml.  Raises DataError."""
    _check_tables(record, file)
    retrieval = task == "retrieval" or (record.get("task") == "retrieval" and task is target is None)
    chosen = _no_target(record, target, file) if retrieval else _chosen_target(record, target, file)
    modalities = record.get("modalities", {})
    if not modalities:
        raise DataError(f"{file} declares no modality; add a table such as [modalities.image] with kind = 'image'")
    if task not in {None, chosen["task"]}:
        raise DataError(f"{file}: target {chosen['column']!r} is declared for {chosen['task']}, not for {task!r}")
    _check_target(chosen, file)
    bounds = chosen.get("range")
    return Declaration(
        name=str(record.get("name", "dataset")),
        task=chosen["task"],
        metric=chosen["metric"],
        target=chosen["column"],
        modalities=tuple(_modality(name, entry, file) for name, entry in modalities.items()),
        classes=tuple(str(name) for name in chosen.get("classes", ())),
        range=None if bounds is None else (float(bounds[0]), float(bounds[1])),
        positive=str(chosen.get("positive", "")),
        pair=tuple(str(name) for name in record.get("pair", ())) if retrieval else (),
        group=str(record.get("group", {}).get("column", "")),
        file=str(record.get("file", "")),
        partition=dict(record.get("partition", {})),
        about={k: v for k, v in record.items() if isinstance(v, str | int | float) and k not in {"file"}},
    )


def write_declaration(declaration: Declaration, path: Path, *, file: str = "", notes: Sequence[str] = ()) -> None:
    """Write a dataset.toml that `read_declaration` reads back; notes become comments.

    Raises DataError if the file exists.
    """
    lines = [*(f"# {note}" for note in notes), *_lines(declaration, file)]
    try:
        with path.open("x", encoding="utf-8") as out:
            out.write("\n".join(lines) + "\n")
    except FileExistsError as error:
        raise DataError(f"{path.name} exists already in {path.parent.name!r}; correct it or remove it") from error


def _check_tables(record: Mapping[str, Any], file: str) -> None:
    tables = {key: record.get(key, {}) for key in ("target", "other_targets", "modalities", "group", "partition")}
    others = tables["other_targets"]
    tables |= {f"other_targets.{key}": value for key, value in others.items()} if isinstance(others, Mapping) else {}
    if not isinstance(record.get("pair", []), list):
        raise DataError(f"{file}: 'pair' must list two modalities, query and target, got {record['pair']!r}")
    for key, value in tables.items():
        if not isinstance(value, Mapping):
            raise DataError(f"{file}: {key!r} must be a table [{key}], got {value!r}")
        for option, kind in _TYPES.items():
            if option in value and not isinstance(value[option], kind):
                raise DataError(f"{file}: [{key}] {option!r} must be a {kind.__name__}, got {value[option]!r}")
    if unknown := tables["partition"].keys() - {"column", "shares", "seed"}:
        raise DataError(f"{file}: [partition] has unknown keys {sorted(unknown)}; known are column, shares, seed")


def _chosen_target(record: Mapping[str, Any], target: str | None, file: str) -> dict[str, Any]:
    main = dict(record.get("target", {}))
    main.setdefault("task", record.get("task", "regression" if "range" in main else "classification"))
    main.setdefault("metric", record.get("metric", ""))
    others = {name: {"column": name, **other} for name, other in record.get("other_targets", {}).items()}
    known = {str(entry.get("column")): entry for entry in (main, *others.values())}
    chosen = main if target is None else known.get(target)
    if chosen is None or "column" not in chosen:
        raise DataError(f"{file} declares no target {target or 'column'!r}; it has {sorted(known)}")
    chosen["task"] = chosen.get("task") or "classification"
    chosen["metric"] = chosen.get("metric") or _default_metric(chosen)
    return chosen


def _no_target(record: Mapping[str, Any], target: str | None, file: str) -> dict[str, Any]:
    """Retrieval predicts no column; its metric is the declared one if the declared task is retrieval too."""
    if target is not None:
        raise DataError(f"{file}: retrieval has no target, got {target!r}; leave 'target' out or choose another task")
    declared = record.get("metric") if record.get("task") == "retrieval" else None
    return {"task": "retrieval", "column": "", "metric": declared or METRICS["retrieval"][0]}


def _check_target(target: Mapping[str, Any], file: str) -> None:
    metric, task, classes = target["metric"], target["task"], [str(name) for name in target.get("classes", ())]
    if metric not in METRICS.get(task, ()):
        allowed = {name: sorted(metrics) for name, metrics in METRICS.items()}
        raise DataError(f"{file}: metric {metric!r} does not fit task {task!r}; choose of {allowed}")
    if task == "classification" and (len(classes) < 2 or len(set(classes)) < len(classes)):
        raise DataError(f"{file}: 'classes' must name at least two classes, each once, got {classes}")
    if metric == "auroc" and target.get("positive") not in classes:
        raise DataError(f"{file}: auroc needs 'positive' to be one of {classes}, got {target.get('positive')!r}")
    bounds = target.get("range", (0, 1))
    if len(bounds) != 2 or {type(bound) for bound in bounds} - {int, float} or not bounds[0] < bounds[1]:
        raise DataError(f"{file}: 'range' must be the smallest and the largest value, got {bounds}")


def _default_metric(target: Mapping[str, Any]) -> str:
    if target["task"] == "regression":
        return "mae"
    return "auroc" if target.get("positive") else "accuracy"


def _modality(name: str, entry: object, file: str) -> Modality:
    where = f"{file}: [modalities.{name}]"
    if not isinstance(entry, Mapping) or str(entry.get("kind")) not in _KEYS:
        given = entry.get("kind") if isinstance(entry, Mapping) else entry
        raise DataError(f"{where} has kind {given!r}, expected one of {sorted(_KEYS)}")
    kind = entry["kind"]
    if unknown := entry.keys() - _KEYS[kind] - _INFORMAL - {"kind", "column"}:
        known = sorted(_KEYS[kind] | {"kind", "column"})
        raise DataError(f"{where} has unknown keys {sorted(unknown)}; {kind} knows {known}")
    options = {key: entry[key] for key in _KEYS[kind] if key in entry}
    _check_options(kind, options, where)
    names = options.pop("channel_names", options.pop("fields", ()))
    options["fields"] = tuple(str(item) for item in names)
    if "rate_hz" in options:
        options["rate_hz"] = float(options["rate_hz"])
    try:
        return Modality(name=name, kind=kind, column=str(entry.get("column", name)), **options)
    except SchemaError as error:
        raise DataError(f"{file}: {error}") from error


def _check_options(kind: str, options: Mapping[str, Any], where: str) -> None:
    for key, value in options.items():
        if key in _WHOLE and (type(value) is not int or value < 1):
            raise DataError(f"{where} {key!r} must be a whole number above 0, got {value!r}")
        if key in {"fields", "channel_names"} and not (isinstance(value, list) and value):
            raise DataError(f"{where} {key!r} must be a list of names, got {value!r}")
    if type(options.get("rate_hz", 1)) not in {int, float} or options.get("rate_hz", 1) <= 0:
        raise DataError(f"{where} 'rate_hz' must be frames per second above 0, got {options['rate_hz']!r}")
    if kind in {"image", "video"} and options.get("channels", 3) not in {1, 3}:
        raise DataError(
            f"{where} {'an image' if kind == 'image' else 'a video'} has 1 or 3 channels, got {options['channels']}"
        )
    if kind == "audio" and options.get("channels", 1) != 1:
        raise DataError(f"{where} a clip has 1 channel once it is loaded, got {options['channels']}")
    names = options.get("channel_names")
    if names is not None and len(names) != options.get("channels", len(names)):
        raise DataError(f"{where} 'channel_names' has {len(names)} names for {options['channels']} channels")


def _lines(declaration: Declaration, file: str) -> list[str]:
    d = declaration
    top: dict[str, Any] = {"name": d.name, "task": d.task, "metric": d.metric, "pair": d.pair, "file": file or d.file}
    goal: dict[str, Any] = {"column": d.target, "classes": d.classes, "positive": d.positive, "range": d.range}
    lines = _pairs(top)
    if d.target:
        lines += ["", "[target]", *_pairs(goal)]
    if d.partition:
        lines += ["", "[partition]", *_pairs(d.partition)]
    if d.group:
        lines += ["", "[group]", *_pairs({"column": d.group})]
    for modality in d.modalities:
        keys = {f.name: getattr(modality, f.name) for f in dataclasses.fields(modality) if f.name != "name"}
        if modality.kind in {"series", "points"}:
            keys["channel_names"] = keys.pop("fields")
        allowed = _KEYS[modality.kind] | {"kind", "column"}
        kept = {key: value for key, value in keys.items() if key in allowed}
        lines += ["", f"[modalities.{modality.name}]", *_pairs(kept)]
    return lines


def _pairs(values: Mapping[str, Any]) -> list[str]:
    return [f"{_toml(key, '')} = {_toml(value)}" for key, value in values.items() if value not in (None, "", (), 0)]


def _toml(value: Any, quote: str = '"') -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    if isinstance(value, str):
        bare = not quote and value.replace("_", "").isalnum() and value.isascii()
        return value if bare else json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return repr(cast("float", value))
