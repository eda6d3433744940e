"""What the inputs and the target are. Torch-free; stored in every dataset, checkpoint and bundle."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self, TypeVar, get_args

from triptych.errors import SchemaError

T = TypeVar("T")
Kind = Literal["image", "audio", "text", "series", "table", "video", "points", "codes"]
FILES: frozenset[Kind] = frozenset({"image", "audio", "video", "points", "codes"})  # whose values may be files
Task = Literal["classification", "regression", "retrieval"]
Metric = Literal["accuracy", "auroc", "acc2", "mae", "recall_at_1", "recall_at_10"]
METRICS: Mapping[Task, tuple[Metric, ...]] = {
    "classification": ("accuracy", "auroc"),
    "regression": ("mae", "acc2"),
    "retrieval": ("recall_at_1", "recall_at_10"),
}
"""What judges each task; the first is used where nothing else is said."""


@dataclass(frozen=True, slots=True)
class Modality:
    """One input. Only the fields of its `kind` are set; the rest stay at their defaults.

    Fields below the line are measured on the training split when data is loaded: they are part of the
    preprocessing, so they travel with the model.
    """

    name: str
    kind: Kind
    column: str = ""
    height: int = 0  # image, video: pixels
    width: int = 0  # image, video: pixels
    channels: int = 0  # image, video: 1 or 3; audio: 1; series: per frame; points: features; codes: levels
    sample_rate: int = 0  # audio: Hz
    rate_hz: float = 0.0  # series: frames per second
    frames: int = 0  # series: frames per example, longer ones are cropped; video: as many are taken evenly
    fields: tuple[str, ...] = ()  # table: field names; series, points: channel names
    # --- measured on the training split
    max_samples: int = 0  # audio: samples per example, longer clips are cropped
    max_tokens: int = 0  # text, codes: tokens per example, longer ones are cropped
    max_points: int = 0  # points: per example, larger clouds are thinned evenly
    tokenizer: str = field(default="", repr=False)  # text: a `tokenizers` JSON document; id 0 is padding
    vocabulary: int = 0  # text, codes: number of ids, padding included
    center: tuple[float, ...] = field(default=(), repr=False)  # median per channel or field; image: of deep values
    scale: tuple[float, ...] = field(default=(), repr=False)  # spread per channel or field; image: of deep values

    def __post_init__(self) -> None:
        if not self.name or not self.name.isidentifier():
            raise SchemaError(f"a modality name must be an identifier such as 'image', got {self.name!r}")
        if self.kind not in get_args(Kind):
            raise SchemaError(f"modality {self.name!r}: kind must be one of {get_args(Kind)}, got {self.kind!r}")
        if not self.column:
            object.__setattr__(self, "column", self.name)


@dataclass(frozen=True, slots=True)
class Schema:
    """Inputs, target and metric of one task.

    Retrieval has no target: its two modalities, query and target, are each other's answers, in both directions.
    """

    name: str
    modalities: tuple[Modality, ...]
    target: str  # the column to predict; empty for retrieval
    task: Task
    metric: Metric
    classes: tuple[str, ...] = ()  # classification: in output order
    range: tuple[float, float] | None = None  # regression: smallest and largest value
    positive: str = ""  # auroc: the class whose probability is ranked
    center: float = 0.0  # regression: mean of the training targets
    scale: float = 1.0  # regression: standard deviation of the training targets
    pair: tuple[str, ...] = ()  # retrieval: the query's modality and the target's

    def __post_init__(self) -> None:
        if not self.modalities:
            raise SchemaError("a schema needs at least one modality")
        names = [m.name for m in self.modalities]
        if len(set(names)) != len(names):
            raise SchemaError(f"modality names must differ, got {names}")
        if self.task not in get_args(Task):
            raise SchemaError(f"task must be one of {get_args(Task)}, got {self.task!r}")
        if self.metric not in get_args(Metric):
            raise SchemaError(f"metric must be one of {get_args(Metric)}, got {self.metric!r}")
        if self.task == "classification" and len(self.classes) < 2:
            raise SchemaError(f"classification needs at least two classes, got {list(self.classes)}")
        if self.metric == "auroc" and self.positive not in self.classes:
            raise SchemaError(f"auroc needs 'positive' to be one of {list(self.classes)}, got {self.positive!r}")
        if self.task == "retrieval":
            self._check_pair()
        elif self.pair:
            raise SchemaError(f"only retrieval has a pair, got {list(self.pair)} for {self.task}")

    def _check_pair(self) -> None:
        if len(self.pair) != 2 or sorted(self.pair) != sorted(self.names):
            raise SchemaError(
                f"retrieval compares two modalities, named in 'pair' as query and target: got {list(self.names)} with "
                f"pair {list(self.pair)}; leave the other modalities out"
            )

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the modalities, in schema order."""
        return tuple(m.name for m in self.modalities)

    @property
    def outputs(self) -> int:
        """Width of the model's output: one per class, or one value; 0 for retrieval, where the network decides."""
        return {"classification": len(self.classes), "regression": 1, "retrieval": 0}[self.task]

    def __getitem__(self, name: str) -> Modality:
        for modality in self.modalities:
            if modality.name == name:
                return modality
        raise SchemaError(f"no modality {name!r}; this schema has {list(self.names)}")

    def only(self, *names: str) -> Schema:
        """The same task with a subset of the modalities."""
        return dataclasses.replace(self, modalities=tuple(self[n] for n in names))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, without the fields that are at their defaults."""
        record = _without_defaults(self)
        record["modalities"] = [_without_defaults(m) for m in self.modalities]
        return record

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Self:
        """Read what `to_dict` wrote.  Raises SchemaError on unknown or ill-typed keys."""
        modalities = tuple(_read(Modality, m) for m in record.get("modalities", ()))
        return _read(cls, {**record, "modalities": modalities})


def _without_defaults(item: Modality | Schema) -> dict[str, Any]:
    fields = dataclasses.fields(item)
    return {f.name: getattr(item, f.name) for f in fields if getattr(item, f.name) != f.default}


def _read(cls: type[T], record: Mapping[str, Any]) -> T:
    known = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    if unknown := record.keys() - known.keys():
        raise SchemaError(f"unknown keys {sorted(unknown)} in a {cls.__name__}; known are {sorted(known)}")
    values = {k: tuple(v) if isinstance(v, list) else v for k, v in record.items()}
    for key in ("center", "scale"):
        numbers = values.get(key, ())
        if any(not math.isfinite(n) for n in (numbers if isinstance(numbers, tuple) else (numbers,))):
            raise SchemaError(f"{cls.__name__}.{key} must be finite, got {numbers}")
    try:
        return cls(**values)
    except TypeError as error:
        raise SchemaError(f"incomplete {cls.__name__}: {error}") from error
