"""What one run found, as plain JSON: the file between the chain that measures and the page that shows."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from triptych.errors import DataError

RUN_FILE = "run.json"


@dataclass(frozen=True, slots=True)
class RunRecord:
    """Everything the report shows.  None, or an absent key, means not measured; never zero.

    budget:     `Budget` as a mapping: p50_s, peak_bytes, size_bytes, max_drop, min_quality, energy_j
    reports:    candidate name -> `Report.to_dict()`, measured on the test split
    reference, chosen: which of `reports` is the uncompressed model and which one was shipped
    steps:      in order of application, the first being the trained model itself: name, settings (text or mapping),
                quality, quality_interval, p50_s, peak_bytes, size_bytes, seconds, note
    rejected:   as `steps`, with `reason`
    modalities: what to add to the modalities in the chosen report's `parts`: name -> params, alone (quality with
                nothing else), or p50_s, flops, worth (quality lost without it), worth_interval where absent there
    confusion:  what `report.answers` returns: classes, counts (rows are true classes), or true, predicted, or
                directions, rows
    examples:   what `report.examples` returns: id, true, predicted, confidence, right, inputs (modality -> `drawable`)
    environment: name -> text or number; where empty, the chosen report's own is shown
    headline:   the last line of `triptych fit`
    """

    dataset: str
    schema: Mapping[str, Any]
    budget: Mapping[str, Any] = field(default_factory=dict)
    reports: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    reference: str = "reference"
    chosen: str = "chosen"
    steps: Sequence[Mapping[str, Any]] = ()
    rejected: Sequence[Mapping[str, Any]] = ()
    modalities: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    confusion: Mapping[str, Any] = field(default_factory=dict)
    examples: Sequence[Mapping[str, Any]] = ()
    environment: Mapping[str, Any] = field(default_factory=dict)
    headline: Mapping[str, Any] = field(default_factory=dict)

    @property
    def metric(self) -> str:
        """Name of the quality metric."""
        return str(self.schema.get("metric", "accuracy"))

    @property
    def task(self) -> str:
        """Classification, regression or retrieval."""
        return str(self.schema.get("task", "classification"))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; numbers that are not finite become None."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {key: plain(value) for key, value in values.items()}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Self:
        """Read what `to_dict` wrote.  Raises DataError on unknown or missing keys."""
        known = {f.name for f in dataclasses.fields(cls)}
        if unknown := record.keys() - known:
            raise DataError(f"unknown keys {sorted(unknown)} in a run record; known are {sorted(known)}")
        try:
            return cls(**record)
        except TypeError as error:
            raise DataError(f"incomplete run record: {error}") from error

    def save(self, folder: str | Path) -> Path:
        """Write `run.json`, whole or not at all."""
        path = Path(folder) / RUN_FILE
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(self.to_dict(), ensure_ascii=False, allow_nan=False), encoding="utf-8")
        partial.replace(path)
        return path

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Read `run.json`.  Raises DataError where it is absent or damaged."""
        path = Path(folder) / RUN_FILE
        if not path.is_file():
            raise DataError(f"no {RUN_FILE} in {folder}; give the folder that `triptych fit --out` wrote")
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, UnicodeError) as error:
            raise DataError(f"{path} is damaged: {error}") from error
        if not isinstance(record, dict):
            raise DataError(f"{path} must hold a JSON object, got {type(record).__name__}")
        return cls.from_dict(record)


def plain(value: Any) -> Any:
    """Turn a value into what JSON can hold; numpy scalars and arrays included, non-finite numbers as None."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return plain({f.name: getattr(value, f.name) for f in dataclasses.fields(value)})
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, Sequence | set | frozenset) and not isinstance(value, str | bytes):
        return [plain(item) for item in (sorted(value) if isinstance(value, set | frozenset) else value)]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, str | int | type(None)) else str(value)
