"""What the command line prints: one JSON line for programs on stdout, everything for people on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from triptych.measure.ledger import Line, advice, ledger, points
from triptych.measure.report import Report
from triptych.report import words
from triptych.report.model import plain

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True, slots=True)
class Plan:
    """A checked command that has not started.

    options: every option with its resolved value; out: the folder where a dry run leaves `plan.json`
    """

    command: str
    options: Mapping[str, Any]
    run: Callable[[Screen], Mapping[str, Any]]
    out: Path | None = None

    def write(self) -> dict[str, Any]:
        """Write `plan.json` if there is a folder for it; return the plan as plain values."""
        record = {"command": self.command, "options": plain({k: _text(v) for k, v in self.options.items()})}
        if self.out is not None:
            self.out.mkdir(parents=True, exist_ok=True)
            path = self.out / "plan.json"
            path.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
            return {"dry_run": True, **record, "plan": str(path)}
        return {"dry_run": True, **record}


def _text(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


@dataclass(slots=True)
class Screen:
    """The terminal of a person; silent when only the JSON line is wanted."""

    quiet: bool = False
    _console: Console | None = field(default=None, repr=False)

    @property
    def console(self) -> Console:
        """Writes to stderr."""
        if self._console is None:
            from rich.console import Console

            self._console = Console(stderr=True, quiet=self.quiet, highlight=False)
        return self._console

    def say(self, text: str) -> None:
        """One line, shown as it is."""
        self.console.print(text, markup=False)

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[str]], title: str = "") -> None:
        """A table, its cells shown as they are."""
        from rich.table import Table
        from rich.text import Text

        table = Table(title=title or None, title_justify="left", header_style="dim")
        for i, column in enumerate(columns):
            table.add_column(Text(column), justify="left" if i == 0 else "right")
        for row in rows:
            table.add_row(*(Text(cell) for cell in row))
        self.console.print(table)

    def pairs(self, facts: Mapping[str, Any], title: str = "") -> None:
        """Names and values."""
        self.table(("", ""), [(str(key), str(value)) for key, value in facts.items()], title)

    def reports(self, reports: Mapping[str, Mapping[str, Any]]) -> None:
        """One row per measured candidate."""
        head = ("candidate", "quality", "95 % interval", "drop", "p50", "of the first", "peak memory", "size", "FLOPs")
        self.table(head, [_report_row(name, report) for name, report in reports.items()])
        details = {name: report["details"] for name, report in reports.items() if report.get("details")}
        if details:
            figures = list(next(iter(details.values())))
            rows = [(f, *(words.detail(f, one.get(f)) for one in details.values())) for f in figures]
            self.table(("", *details), rows)

    def ledger(self, report: Report, title: str = "") -> dict[str, Any]:
        """What each modality costs and is worth, with the advice; returns both as plain values, empty where unknown."""
        lines = ledger(report)
        if not lines:
            return {}
        metric = str(report.metric or "")
        sentences = advice(lines, metric)
        head = ("modality", "p50", "share of the cost", "FLOPs", "weights", "energy", "earns", "lost without it")
        self.table(head, [_ledger_row(line, metric) for line in lines], title)
        for one in sentences:
            self.say(one)
        return {"ledger": [line.to_dict() for line in lines], "advice": list(sentences)}

    def outcome(self, line: Mapping[str, Any]) -> None:
        """What `fit` found: before and after, what of the budget was missed, and where the page lies."""
        metric = str(line.get("metric") or "")
        show = {
            "quality": lambda v: words.quality(v, metric),
            "p50_s": words.seconds,
            "peak_bytes": words.size,
            "size_bytes": words.size,
        }
        rows = [(_TITLES[key], say(line.get(f"{key}_reference")), say(line.get(key))) for key, say in show.items()]
        self.table(("", "reference", "bundle"), rows, str(line.get("dataset") or ""))
        for name, excess in (line.get("missed") or {}).items():
            self.say(f"missed: {name}, by {excess:.2%}")
        self.say(f"report: {line.get('report')}")

    @contextmanager
    def progress(self) -> Iterator[Callable[[object], None]]:
        """A callback that shows what it is told: text as a line, training progress as a status line that stays put."""
        if self.quiet:
            yield lambda _event: None
            return
        with self.console.status("working") as status:

            def show(event: object) -> None:
                if isinstance(event, str):
                    self.say(event)
                else:
                    status.update(_status(event))

            yield show


_TITLES = {"quality": "quality", "p50_s": "p50", "peak_bytes": "peak memory", "size_bytes": "size"}


def _status(event: object) -> str:
    from rich.markup import escape

    fraction, loss, best = (getattr(event, name, None) for name in ("fraction", "loss", "best"))
    if fraction is None:
        return escape(str(event))
    parts = [f"{100 * fraction:.0f} %", f"loss {loss:.3f}" if loss is not None else ""]
    return "training  " + "  ".join([*parts, f"best {best:.3f}" if best is not None else ""])


def _report_row(name: str, record: Mapping[str, Any]) -> tuple[str, ...]:
    metric, ratio = str(record.get("metric") or ""), record.get("p50_ratio")
    return (
        name,
        words.quality(record.get("quality"), metric),
        words.interval(record.get("quality_interval"), lambda v: words.quality(v, metric)),
        words.difference(record.get("drop"), metric),
        words.seconds(record.get("p50_s")),
        words.NOT_MEASURED if ratio is None else f"{words.number(ratio)}×",
        words.size(record.get("peak_bytes")),
        words.size(record.get("size_bytes")),
        words.count(record.get("flops")),
    )


def _ledger_row(line: Line, metric: str) -> tuple[str, ...]:
    share, energy = (words.NOT_MEASURED if v is None else f"{v:.0%}" for v in (line.share, line.energy_share))
    return (
        line.name,
        words.seconds(line.p50_s),
        f"{share} of the {line.share_of}" if line.share_of else share,
        words.count(line.flops),
        words.size(line.size_bytes),
        energy,
        points(line.shapley, line.shapley_interval, metric),
        points(line.worth, line.worth_interval, metric),
    )


def without_samples(record: Mapping[str, Any]) -> dict[str, Any]:
    """A report without its raw samples, and its parts without theirs."""
    kept = {key: value for key, value in record.items() if key not in {"samples_s", "parts"}}
    parts = {name: without_samples(part) for name, part in record.get("parts", {}).items()}
    return {**kept, "parts": parts} if parts else kept


def emit(record: Mapping[str, Any]) -> None:
    """The JSON line that ends every command."""
    sys.stdout.write(json.dumps(plain(record), ensure_ascii=False, allow_nan=False) + "\n")
    sys.stdout.flush()
