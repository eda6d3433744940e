"""docs/missing.md and its plots from docs/results/missing.json and nothing else; what is said follows from it by rule.

python bench/missing_page.py
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fusion_page import LOWER_IS_BETTER, T_95, interval
from words import signed, table

ROOT = Path(__file__).resolve().parents[1]
Record = Mapping[str, Any]
CONTROL, NONE = "zero", "none"
COLORS = {
    "zero": "#7b8794",
    "placeholder": "#b4632a",
    "dropout": "#17697a",
    "bank": "#8a5fb0",
    "bank_dropout": "#b23a3a",
}

ABOUT = "Written by `python bench/missing.py` from [results/missing.json](results/missing.json). Do not edit."
ABOUT_FILLS = """What stands for a modality that a row lacks, in front of the fusion: a token of zeros (`zero`, the
control), a learnt token per modality (`placeholder`), a learnt token per modality and observed combination (`bank`); or
zeros, with each modality hidden from each training row with a chance of 0.3 at every step (`dropout`). *Incomplete* is
the share of the training rows that lack a part of their modalities, drawn evenly, for the whole training. Validation
rows, which choose the best epoch, and test rows are whole; then the test rows are asked again with every subset.
*Some missing* is the mean over all proper subsets. ± is half of the 95 % interval over the seeds (Student's t); where
nothing differs, one comparison in twenty is told apart all the same."""
ABOUT_BALANCE = """Each network is compared with the one of the same seed that is trained without a balance; ± as
above, of the differences. Shapley values are of test quality over all subsets; they add up to the quality less that of
the best answer that looks at nothing."""
SAME = "no difference that the seeds show"


def write_page(docs: Path) -> None:
    """Write the page and its plots."""
    record = json.loads((docs / "results" / "missing.json").read_text())
    (docs / "missing.md").write_text(page(record))
    write_plots(record, docs / "results")


def page(record: Record) -> str:
    """The whole page as Markdown."""
    filled = {name: one for name, one in record["sets"].items() if one["fills"]}
    balanced = {name: one for name, one in record["sets"].items() if one["balance"]}
    parts = ["# Missing and unbalanced modalities", ABOUT]
    parts += [protocol(record)] if record["sets"] else ["No set has been measured yet."]
    if filled:
        parts += ["## What stands for a missing modality", ABOUT_FILLS, verdicts(filled)]
        parts += ["![quality against the share of incomplete rows](results/missing.png)"]
        parts += [part for name, one in filled.items() for part in (f"### {name}", fills_table(one))]
    if balanced:
        parts += ["## What balancing changes", ABOUT_BALANCE, "![Shapley values](results/balance.png)"]
        parts += [part for name, one in balanced.items() for part in (f"### {name}", balance_table(one), told(one))]
    return "\n\n".join(parts) + "\n"


def protocol(record: Record) -> str:
    runs = [run for one in record["sets"].values() for run in runs_of(one)]
    machine = next(iter(record["sets"].values()))["environment"]
    commits = sorted(
        {run["commit"][:12] + (" with changes" if "+" in run["commit"] else "") for run in runs if run["commit"]}
    )
    limit = f", at most {record['seconds']:g} s each" if record.get("seconds") else ""
    return (
        f"Small late-fusion networks, {len(runs)} trainings; about {record['rows']:,} training rows per network "
        f"(balance: {record['balance_rows']:,}) to whole epochs{limit}. "
        f"{machine['cpu']}, torch {machine['packages']['torch']}; at commit {', '.join(commits) or 'unknown'}."
    )


def runs_of(one: Record) -> list[Record]:
    filled = [run for rates in one["fills"].values() for runs in rates.values() for run in runs]
    return [*filled, *(run for runs in one["balance"].values() for run in runs)]


# ---- figures


def goodness(run: Record, one: Record, subset: str) -> float:
    """Quality with a subset, higher is better."""
    return (-1 if one["metric"] in LOWER_IS_BETTER else 1) * float(run["subsets"][subset])


def everything(one: Record) -> str:
    return "+".join(one["modalities"])


def proper(one: Record, run: Record) -> list[str]:
    """Subsets that lack something and are not nothing."""
    return [subset for subset in run["subsets"] if subset not in {"", everything(one)}]


def some_missing(run: Record, one: Record) -> float:
    """Mean goodness over the proper subsets."""
    return statistics.mean(goodness(run, one, subset) for subset in proper(one, run))


def with_all(run: Record, one: Record) -> float:
    return goodness(run, one, everything(one))


def paired(
    runs: Sequence[Record], control: Sequence[Record], score: Callable[[Record], float]
) -> tuple[float, float | None]:
    """Mean difference seed by seed and half of its 95 % interval, None for a single seed."""
    gaps = [score(a) - score(b) for a, b in zip(runs, control, strict=False)]
    if len(gaps) < 2:
        return gaps[0], None
    return statistics.mean(gaps), T_95[len(gaps)] * statistics.stdev(gaps) / math.sqrt(len(gaps))


def outcome(gap: float, half: float | None) -> int:
    """1 or -1 where the interval leaves zero out, else 0."""
    return 0 if half is None or abs(gap) <= half else int(math.copysign(1, gap))


def tally(sets: Mapping[str, Record], way: str, score: Callable[[Record, Record], float]) -> dict[int, int]:
    """How often a way is better (1), worse (-1) or not to be told from zeros (0), over sets and rates."""
    found = {1: 0, 0: 0, -1: 0}
    for one in sets.values():
        control = one["fills"].get(CONTROL, {})
        for rate, runs in one["fills"].get(way, {}).items():
            if rate in control:
                found[outcome(*paired(runs, control[rate], lambda run, one=one: score(run, one)))] += 1
    return found


# ---- words


def verdicts(sets: Mapping[str, Record]) -> str:
    """Each way against zeros, counted over sets and rates."""
    ways = list(dict.fromkeys(way for one in sets.values() for way in one["fills"] if way != CONTROL))
    lines = []
    for way in ways:
        cells = []
        for score in (with_all, some_missing):
            found = tally(sets, way, score)
            cells.append(f"{found[1]} better, {found[-1]} worse, {found[0]} not told apart")
        lines.append((f"`{way}`", *cells))
    head = ("against `zero`, sets × shares", "everything there", "some missing")
    return table(head, lines) + "\n\nWithout incomplete rows nothing teaches a placeholder or a bank: both stay zeros."


def plus(value: float, half: float | None) -> str:
    return f"{value:.3f}".replace("-", "−") + ("" if half is None else f" ± {half:.3f}")


def change(gap: float, half: float | None) -> str:
    return signed(gap) + ("" if half is None else f" ± {half:.3f}")


def fills_table(one: Record) -> str:
    """Rows are ways and shares; columns the subsets."""
    some = runs_of({**one, "balance": {}})[0]
    subsets = proper(one, some)
    many = len(subsets) > 6  # four modalities: single ones and all but one
    shown = [s for s in subsets if not many or s.count("+") in {0, len(one["modalities"]) - 2}]
    rows = []
    for rate in dict.fromkeys(rate for rates in one["fills"].values() for rate in rates):
        for way, rates in sorted(one["fills"].items(), key=lambda item: item[0] != CONTROL):
            if rate not in rates:
                continue
            runs = rates[rate]
            means = [interval([run["subsets"][subset] for run in runs]) for subset in (everything(one), *shown)]
            sign = -1 if one["metric"] in LOWER_IS_BETTER else 1
            missing = interval([sign * some_missing(run, one) for run in runs])
            whole, *rest = means
            rows.append(
                (f"{float(rate):.0%}", f"`{way}`", plus(*whole), plus(*missing), *(f"{m:.3f}" for m, _ in rest))
            )
    head = ("incomplete", "way", f"{one['metric']}, everything", "some missing", *(f"only {s}" for s in shown))
    nothing = some["subsets"].get("")
    note = "" if nothing is None else f"\n\nThe best answer that looks at nothing gives {nothing:.3f}."
    return table(head, rows) + note


def balance_table(one: Record) -> str:
    names, control = one["modalities"], one["balance"].get(NONE, [])
    sign = -1 if one["metric"] in LOWER_IS_BETTER else 1
    rows = []
    for way, runs in sorted(one["balance"].items(), key=lambda item: item[0] != NONE):
        quality = interval([run["subsets"][everything(one)] for run in runs])
        earned = [interval([run["shapley"][name][0] for run in runs]) for name in names]
        alone = [interval([run["subsets"][name] for run in runs]) for name in names]
        gap = change(*paired(runs, control, lambda run: with_all(run, one))) if control and way != NONE else ""
        seconds = statistics.mean(run["train_s"] for run in runs)
        cells = [plus(*pair) for pair in (*earned, *alone)]
        rows.append((f"`{way}`", plus(*quality), gap, *cells, f"{seconds:.0f}"))
    better = f"better than `{NONE}`" if sign > 0 else f"lower than `{NONE}`"
    head = (
        "balance",
        one["metric"],
        better,
        *(f"{n} earns" for n in names),
        *(f"{n} alone" for n in names),
        "train (s)",
    )
    return table(head, rows)


def told(one: Record) -> str:
    """What each balance changes, said only where the interval of the paired differences leaves zero out."""
    control = one["balance"].get(NONE, [])
    lines = []
    for way, runs in one["balance"].items():
        if way == NONE or not control:
            continue
        scores: dict[str, Callable[[Record], float]] = {"quality": lambda run: with_all(run, one)}
        scores |= {f"what {n} earns": lambda run, n=n: run["shapley"][n][0] for n in one["modalities"]}
        scores |= {f"the quality of {n} alone": lambda run, n=n: goodness(run, one, n) for n in one["modalities"]}
        found = {what: paired(runs, control, score) for what, score in scores.items()}
        moved = [f"{what} {change(gap, half)}" for what, (gap, half) in found.items() if outcome(gap, half)]
        lines.append(f"- `{way}`: {', '.join(moved) or SAME}.")
    return "\n".join(lines)


# ---- plots


def write_plots(record: Record, folder: Path) -> list[Path]:
    """missing.png and balance.png, those that there are figures for."""
    filled = {name: one for name, one in record["sets"].items() if one["fills"]}
    balanced = {name: one for name, one in record["sets"].items() if one["balance"]}
    made = []
    if filled:
        made.append(_drawn(folder / "missing.png", (2.6 * len(filled), 5.0), lambda figure: _fills(figure, filled)))
    if balanced:
        made.append(
            _drawn(folder / "balance.png", (4.4 * len(balanced), 3.2), lambda figure: _balance(figure, balanced))
        )
    return made


def _drawn(path: Path, size: tuple[float, float], draw: Callable[[Any], None]) -> Path:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    draw(figure)
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=7)
    figure.savefig(path, metadata={"Software": "triptych"})
    return path


def _fills(figure: Any, sets: Mapping[str, Record]) -> None:
    panels = figure.subplots(2, len(sets), squeeze=False, sharex=True)
    for column, (name, one) in enumerate(sets.items()):
        sign = -1 if one["metric"] in LOWER_IS_BETTER else 1
        for row, (score, title) in enumerate(((with_all, "everything there"), (some_missing, "some missing"))):
            axes = panels[row][column]
            for number, (way, rates) in enumerate(one["fills"].items()):
                x = sorted(rates, key=float)
                points = [interval([sign * score(run, one) for run in rates[rate]]) for rate in x]
                place = [100 * float(rate) + 0.8 * number for rate in x]
                spread = [half or 0.0 for _, half in points]
                style = {"marker": "o", "markersize": 3, "linewidth": 1, "capsize": 2, "color": COLORS.get(way)}
                axes.errorbar(place, [mean for mean, _ in points], spread, label=way, **style)
            axes.set_title(f"{name}: {title}", fontsize=8, loc="left")
    for axes in panels[1]:
        axes.set_xlabel("incomplete training rows, %", fontsize=7)
    panels[0][0].legend(fontsize=7, frameon=False)


def _balance(figure: Any, sets: Mapping[str, Record]) -> None:
    for axes, (name, one) in zip(figure.subplots(1, len(sets), squeeze=False)[0], sets.items(), strict=True):
        ways = sorted(one["balance"], key=lambda way: way != NONE)
        for number, modality in enumerate(one["modalities"]):
            points = [interval([run["shapley"][modality][0] for run in one["balance"][way]]) for way in ways]
            place = [i + 0.8 * number / len(one["modalities"]) for i in range(len(ways))]
            axes.barh(
                place,
                [m for m, _ in points],
                0.7 / len(one["modalities"]),
                xerr=[h or 0.0 for _, h in points],
                label=modality,
            )
        axes.set_yticks(range(len(ways)), ways)
        axes.invert_yaxis()
        axes.set_title(f"{name}: Shapley values of {one['metric']}", fontsize=8, loc="left")
        axes.legend(fontsize=7, frameon=False, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.08))


if __name__ == "__main__":
    write_page(ROOT / "docs")
    print(json.dumps({"page": "docs/missing.md"}))
