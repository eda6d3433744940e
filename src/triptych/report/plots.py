"""The report's figures as PNG files, for slides and model cards."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from triptych.report import words
from triptych.report.model import RunRecord
from triptych.report.points import floor_quality, ledger, points

INK, SOFT, ACCENT, SECOND, OTHER, BAD, LIMIT = (
    "#20262b",
    "#5d6872",
    "#17697a",
    "#b4632a",
    "#7b8794",
    "#b23a3a",
    "#b98a1d",
)
LOOK = {
    "reference": {"marker": "s", "color": SECOND, "s": 60, "zorder": 4},
    "chosen": {"marker": "o", "color": ACCENT, "s": 80, "zorder": 5},
    "other": {"marker": "o", "color": OTHER, "s": 50, "zorder": 3},
    "step": {"marker": "o", "facecolors": "white", "edgecolors": OTHER, "s": 28, "zorder": 2},
    "rejected": {"marker": "x", "color": BAD, "s": 40, "zorder": 2},
}


def write_plots(run: RunRecord, folder: str | Path) -> list[Path]:
    """Write front.png, steps.png and modalities.png, those that the run has figures for."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    wanted: tuple[tuple[str, bool, Callable[[RunRecord, Any], None]], ...] = (
        ("front.png", any(p["p50_s"] is not None for p in points(run)), _front),
        ("steps.png", bool(run.steps), _steps),
        ("modalities.png", bool(ledger(run)), _modalities),
    )
    return [_write(run, folder / name, drawing) for name, possible, drawing in wanted if possible]


def _write(run: RunRecord, path: Path, drawing: Callable[[RunRecord, Any], None]) -> Path:
    return write_figure(path, lambda figure: drawing(run, figure))


def write_figure(path: Path, drawing: Callable[[Any], None]) -> Path:
    """One figure in the look of all, as a PNG file.  drawing: fills an empty matplotlib figure"""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.6, 4.2), dpi=140, layout="constrained")
    FigureCanvasAgg(figure)
    drawing(figure)
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(colors=SOFT, labelsize=8)
    figure.savefig(path, metadata={"Software": "triptych"})
    return path


def _label(text: Any) -> str:
    """Text that matplotlib shows as it is: no formulas, bounded."""
    return str(text)[:40].replace("$", r"\$")


def _front(run: RunRecord, figure: Any) -> None:
    axes = figure.subplots()
    for point in points(run):
        if point["p50_s"] is None:
            continue
        x, y, role = 1e3 * point["p50_s"], point["quality"], point["role"]
        axes.scatter([x], [y], **LOOK[role])
        if (
            point["quality_interval"]
            and None not in point["quality_interval"]
            and role in ("reference", "chosen", "other")
        ):
            axes.vlines(x, *point["quality_interval"], color=LOOK[role]["color"], alpha=0.5)
            axes.annotate(_label(point["name"]), (x, y), (8, 4), textcoords="offset points", fontsize=8, color=INK)
    if run.budget.get("p50_s") is not None:
        axes.axvline(1e3 * run.budget["p50_s"], color=LIMIT, linestyle="--", linewidth=1)
    if (floor := floor_quality(run)) is not None:
        axes.axhline(floor, color=LIMIT, linestyle="--", linewidth=1)
    if run.metric in words.LOWER_IS_BETTER:
        axes.invert_yaxis()
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda v, _: f"{v:g}")
    axes.xaxis.set_minor_formatter(lambda v, _: f"{v:g}" if f"{v:.1e}"[0] in "235" else "")
    axes.tick_params(which="minor", labelsize=8, colors=SOFT)
    axes.set_xlabel("median latency, ms (dashed: budget)", color=SOFT, fontsize=9)
    axes.set_ylabel(words.METRICS.get(run.metric, run.metric), color=SOFT, fontsize=9)
    axes.set_title(f"{_label(run.dataset)}: quality against latency", fontsize=10, loc="left", color=INK)


def _steps(run: RunRecord, figure: Any) -> None:
    columns = (("quality", "quality", 1.0), ("p50_s", "p50, ms", 1e3), ("size_bytes", "size, MB", 1e-6))
    names = [_label(step.get("name", "")) for step in run.steps]
    for axes, (key, title, scale) in zip(figure.subplots(1, 3, sharey=True), columns, strict=True):
        values = [scale * (step.get(key) or 0) for step in run.steps]
        axes.barh(range(len(names)), values, color=ACCENT, height=0.6)
        axes.set_yticks(range(len(names)), names)
        for i, step in enumerate(run.steps):
            text = words.NOT_MEASURED if step.get(key) is None else words.number(scale * step[key])
            axes.text(values[i], i, f" {text}", va="center", fontsize=8, color=INK)
        axes.margins(x=0.3)
        axes.set_title(title, fontsize=9, loc="left", color=INK)
    figure.axes[0].invert_yaxis()


def _modalities(run: RunRecord, figure: Any) -> None:
    """Bars of what is known; a dash, and no bar of length zero, where nothing was measured."""
    found = ledger(run)
    columns = [c for c in _LEDGER if any(m.get(c[0]) is not None for m in found.values())]
    if not columns:
        figure.text(0.5, 0.5, "nothing about single modalities was measured", ha="center", fontsize=9, color=SOFT)
        return
    names = [_label(name) for name in found]
    panels = figure.subplots(1, len(columns), sharey=True, squeeze=False)[0]
    for axes, (key, title, scale, color) in zip(panels, columns, strict=True):
        axes.set_yticks(range(len(names)), names)
        for i, one in enumerate(found.values()):
            if one.get(key) is None:
                axes.text(0, i, f" {words.NOT_MEASURED}", va="center", fontsize=8, color=SOFT)
                continue
            axes.barh(i, scale * one[key], color=color, height=0.5)
            interval = one.get(f"{key}_interval")
            if interval and None not in interval:
                axes.hlines(i, *(scale * end for end in interval), color=INK, linewidth=1)
        axes.axvline(0, color=SOFT, linewidth=0.8)
        axes.set_title(title, fontsize=9, loc="left", color=INK)
    panels[0].invert_yaxis()


_LEDGER = (
    ("p50_s", "cost: encoder time, ms", 1e3, SECOND),
    ("shapley", "earned: Shapley value", 1.0, ACCENT),
    ("worth", "lost without it", 1.0, OTHER),
)


Curve = Sequence[tuple[float, float, float]]


def write_curves(
    path: Path, panels: Mapping[str, Mapping[str, Curve]], levels: Mapping[str, Mapping[str, float]], *, x: str, y: str
) -> Path:
    """A panel per title, side by side, with one line per name; dashed lines for what does not depend on x.

    panels: (x, y, half of an interval) by title and name; levels: y by title and name
    """
    colors = (ACCENT, SECOND, LIMIT, BAD, OTHER, INK)

    def drawing(figure: Any) -> None:
        for axes, (title, curves) in zip(
            figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True
        ):
            for color, (name, curve) in zip(colors, curves.items(), strict=False):
                xs, ys, halves = zip(*curve, strict=True)
                axes.errorbar(xs, ys, halves, color=color, marker="o", markersize=3, linewidth=1, capsize=2, label=name)
            for style, (name, level) in zip(("--", ":", "-.", (0, (1, 3))), levels[title].items(), strict=False):
                axes.axhline(level, color=SOFT, linestyle=style, linewidth=1, label=name)
            axes.set_title(_label(title), fontsize=10, loc="left", color=INK)
            axes.set_xlabel(x, color=SOFT, fontsize=9)
        figure.axes[0].set_ylabel(y, color=SOFT, fontsize=9)
        figure.axes[-1].legend(fontsize=6, frameon=False)

    path.parent.mkdir(parents=True, exist_ok=True)
    return write_figure(path, drawing)
