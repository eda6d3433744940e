"""The HTML report of a run, and its plots."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from triptych.report.gather import answers, examples
from triptych.report.inputs import drawable
from triptych.report.model import RunRecord, plain

__all__ = ["RunRecord", "answers", "drawable", "examples", "plain", "write_report"]


def write_report(run: RunRecord | Mapping[str, Any], folder: str | Path) -> Path:
    """Write `run.json`, `report.html` (one file, no network) and `plots/*.png`; return the page's path."""
    from triptych.report.page import page
    from triptych.report.plots import write_plots

    record = RunRecord.from_dict((run if isinstance(run, RunRecord) else RunRecord.from_dict(run)).to_dict())
    folder = Path(folder)
    record.save(folder)
    path = folder / "report.html"
    path.write_text(page(record), encoding="utf-8")
    write_plots(record, folder / "plots")
    return path
