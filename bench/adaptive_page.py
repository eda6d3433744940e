"""docs/adaptive.md and its plots from docs/results/adaptive.json and nothing else.

python bench/adaptive_page.py
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from fusion_page import interval
from words import ms, share, span, table

from triptych.measure.quality import higher_is_better

ROOT = Path(__file__).resolve().parents[1]
SETS = ("avdigits", "fashion", "sisfall", "ravdess", "icu", "mosi")
LESS_COMPUTE, LESS_LATENCY, WITHIN, LEAST_SETS = 0.50, 0.35, 0.005, 4
INK, ACCENT, QUIET = "#333333", "#2a6fbb", "#bbbbbb"

ABOUT = """Written by `python bench/adaptive.py` from [results/adaptive.json](results/adaptive.json). Do not edit."""
ABOUT_WAYS = """A gate looks at the stem tokens of every modality and decides for each row how many of a modality's
tokens go on; the blocks of a modality that gets none are not run. The network is trained as usual, but with tokens
left out at random, and rests while its gate learns. Then it learns on, taught by what it said before: with the gate,
which rests now with the stems that it reads, and for as long without one, as the control.
Compute is counted on the tokens that are there, gate and stems included; latency is the median of one prediction of
the exported bundle, one thread, in turns with that of the network without; *in batches*, of 32 rows at once.
Intervals are Student's t over the seeds; with one seed, that of the drop is over the test rows, paired."""
ABOUT_RULE = """Asked of a set: at least 50 % less compute and 35 % lower latency, with a mean quality at most 0.5
points below that of the network without a gate."""
ABOUT_CONTROLS = """*Adaptive* is a gate that settled on choices whose losses were seen; *straight-through* one that
learnt for as long by the estimator of that name and a price, the network at rest as well. *Fixed* gives every modality
the same share of its tokens, at no more compute than adaptive. All three come from the same weights, and then the
network learnt on for as long with what each lets through. *Random* is adaptive's network with its choices dealt out to
the rows by chance. *Cascade* runs the control's cheapest modality and stops when its exit is sure, at no more compute
on validation; it needs classes. Quality, then share of the whole compute."""
TRIED = """Budgets were chosen on validation, but others had been seen on test before: one each of avdigits and sisfall,
two of ravdess, which cost too much there, the first in compute and the second in latency."""
WAYS = {
    "adaptive": "adaptive",
    "estimated": "straight-through",
    "fixed": "fixed",
    "random": "random",
    "cascade": "cascade",
}
ABOUT_NOISE = """Share of a modality's tokens that is read as noise takes the place of more and more of its values,
mean over the seeds. *Falls* means that no step raises the mean by more than half a point, and that the last is below
the first. Gates are taught so, by training rows that become noise one modality at a time: what more tokens of it are
worth has to fall from step to step, also where reading more of them would average noise out. The second table tells
what is lost then: points of quality under noise without the gate, less those with it."""

Record = Mapping[str, Any]


def write_page(docs: Path) -> None:
    """Write the page and its plots."""
    record = json.loads((docs / "results" / "adaptive.json").read_text())
    if record["sets"]:
        plot(record, docs / "images" / "adaptive.svg")
    (docs / "adaptive.md").write_text(page(record))


def page(record: Record) -> str:
    """The whole page as Markdown."""
    parts = ["# Modality-adaptive attention", ABOUT, ABOUT_WAYS]
    if not record["sets"]:
        return "\n\n".join([*parts, "No set has been measured yet."]) + "\n"
    sets = record["sets"]
    met = [name for name, one in sets.items() if meets(one)]
    told = f"Met on {len(met)} of {len(sets)} sets ({', '.join(met) or 'none'}); four were asked for."
    if missing := [name for name in SETS if name not in sets]:
        told += f" Not measured: {', '.join(missing)}."
    parts += [protocol(record), "## Against the network without a gate", ABOUT_RULE, told, main_table(sets), TRIED]
    parts += [earlier(name, one) for name, one in sets.items() if one.get("before")]
    parts += ["![Quality and latency, and shares under noise](images/adaptive.svg)"]
    parts += ["## Against other ways to spend as much", ABOUT_CONTROLS, control_table(sets)]
    parts += ["## When a modality turns into noise", ABOUT_NOISE, noise_table(sets), noisy_table(sets)]
    parts += ["## Modalities that are left out", skip_table(sets)]
    return "\n\n".join(parts) + "\n"


def protocol(record: Record) -> str:
    sets, machine = record["sets"], record["environment"]
    networks = ", ".join(sorted({f"`{one['options']['network']}`" for one in sets.values()}))
    commits = sorted({run["commit"][:12] for one in sets.values() for run in one["measured"] if run.get("commit")})
    at = f", measured at commit {', '.join(commits)}" if commits else ""
    tokens = "up to two hundred tokens per modality, those of long series by the stem `convolved`"
    about = f"{networks}, {tokens}{at}. {machine['cpu']}; {loads(record)}."
    return f"{about}\n\n{budget_table(sets)}"


def budget_table(sets: Record) -> str:
    """What each set was given."""
    rows = []
    for name, one in sets.items():
        options, sizes = one["options"], one["sizes"]
        seconds = (f"{options[key]:g}" for key in ("dense_seconds", "gate_seconds", "seconds"))
        own = [f"{part} × {its['depth']}" for part, its in sizes.get("modalities", {}).items()]
        more = [sizes.get("connector", ""), "" if sizes.get("mask", True) else "no masks", *own]
        size = ", ".join([f"{sizes['dim']} × {sizes['depth']}", *filter(None, more)])
        shares = (share(options[key]) for key in ("all_tokens", "budget", "corrupt"))
        rows.append((name, size, str(len(one["measured"])), *seconds, *shares))
    head = (
        "set",
        "width × depth",
        "seeds",
        "training (s)",
        "of the gate (s)",
        "learning on (s)",
        "last part with all tokens",
        "budget",
        "rows with noise in one modality",
    )
    return table(head, rows)


def loads(record: Record) -> str:
    found = [run["environment"]["load_1m"] for one in record["sets"].values() for run in one["measured"]]
    return f"load of the machine after measuring {min(found):.1f} to {max(found):.1f}, the run itself counted in"


def changes(one: Record) -> dict[str, list[float]]:
    """Over the seeds: compute and latency as shares of those without a gate, and by how much the quality is worse."""
    runs = one["measured"]
    worse = 1 if higher_is_better(one["metric"]) else -1
    return {
        "compute": [run["cost"] for run in one["adaptive"]],
        "latency": [run["adaptive"]["p50_ratio"] for run in runs],
        "drop": [worse * (run["dense"]["quality"] - run["adaptive"]["quality"]) for run in runs],
    }


def earlier(name: str, one: Record) -> str:
    """What an earlier timing of the same bundles said, which the table leaves out."""
    told = [
        (
            f"latency {100 * statistics.mean(run['adaptive']['p50_ratio'] for run in runs):.1f} %, without a gate"
            f" {ms(statistics.mean(run['dense']['p50_s'] for run in runs))} ms"
        )
        for runs in (one["before"], one["measured"])
    ]
    return f"{name} was timed twice: at first {told[0]}; then, as in the table, {told[1]}."


def meets(one: Record) -> bool:
    """Whether the means over the seeds are what is asked of a set."""
    found = {key: statistics.mean(values) for key, values in changes(one).items()}
    return (
        found["compute"] <= 1 - LESS_COMPUTE + 1e-9
        and found["latency"] <= 1 - LESS_LATENCY + 1e-9
        and found["drop"] <= WITHIN + 1e-9
    )


def ranged(values: Sequence[float], scale: float = 100, digits: int = 1) -> str:
    """Mean, and half of its interval where there are several seeds."""
    middle, half = interval(values)
    text = f"{scale * middle:.{digits}f}"
    return text if half is None else f"{text} ± {scale * half:.{digits}f}"


def told_drop(one: Record) -> str:
    text, runs = ranged(changes(one)["drop"]), one["measured"]
    return text if len(runs) > 1 else f"{text} {span(runs[0]['adaptive']['drop_interval'], lambda x: f'{100 * x:.1f}')}"


def main_table(sets: Record) -> str:
    head = (
        "set",
        "metric",
        "without a gate",
        "with",
        "drop (points)",
        "compute (%)",
        "latency (%)",
        "p50 (ms)",
        "in batches (%)",
        "met",
    )
    rows = []
    for name, one in sets.items():
        found = changes(one)
        both = [[run[way]["quality"] for run in one["measured"]] for way in ("dense", "adaptive")]
        seconds = [statistics.mean(run[way]["p50_s"] for run in one["measured"]) for way in ("dense", "adaptive")]
        rows.append(
            (
                name,
                one["metric"],
                *(ranged(values) for values in both),
                told_drop(one),
                ranged(found["compute"]),
                ranged(found["latency"]),
                f"{ms(seconds[0])} → {ms(seconds[1])}",
                ranged([run["adaptive"]["batch_ratio"] for run in one["measured"]]),
                "yes" if meets(one) else "no",
            )
        )
    return table(head, rows)


def control_table(sets: Record) -> str:
    rows = []
    for name, one in sets.items():
        cells = [name]
        for way in WAYS:
            runs = [run for run in one[way] if run is not None]
            cost = f"{100 * statistics.mean(run['cost'] for run in runs):.0f} %" if runs else ""
            cells.append(f"{ranged([run['quality'] for run in runs])} at {cost}" if runs else "no classes")
        rows.append(cells)
    return table(("set", *WAYS.values()), rows)


def swept(one: Record, name: str, key: str = "share") -> list[float]:
    """Means over the seeds, by strength."""
    runs = [run[name] for run in one["noise"]]
    return [statistics.mean(point[key] for point in points) for points in zip(*runs, strict=True)]


def falls(values: Sequence[float]) -> bool:
    """Whether the share never rises, but for half a point, and ends lower than it began."""
    return values[-1] < values[0] and all(b <= a + 0.005 for a, b in pairwise(values))


def noise_table(sets: Record) -> str:
    rows = []
    for name, one in sets.items():
        for modality in one["noise"][0]:
            values = swept(one, modality)
            told = "yes" if falls(values) else "no"
            rows.append((name, modality, *(share(value) for value in values), told))
    return table(("set", "modality", *(f"noise {100 * s:.0f} %" for s in strengths(sets)), "falls"), rows)


def noisy_table(sets: Record) -> str:
    """By strength, how many points of quality are lost by the gate."""
    rows = []
    for name, one in sets.items():
        worse = 1 if higher_is_better(one["metric"]) else -1
        for modality in one["noise"][0]:
            runs = [run[modality] for run in one["noise"]]
            lost = [[worse * (step["dense"] - step["adaptive"]) for step in steps] for steps in zip(*runs, strict=True)]
            rows.append((name, modality, *(ranged(drops) for drops in lost)))
    return table(("set", "noise in", *(f"noise {100 * s:.0f} %" for s in strengths(sets))), rows)


def strengths(sets: Record) -> list[float]:
    first = next(iter(sets.values()))["noise"][0]
    return [point["strength"] for point in next(iter(first.values()))]


def skip_table(sets: Record) -> str:
    rows = []
    for name, one in sets.items():
        alone = ranged([run["one_alone"] for run in one["adaptive"]])
        for modality in one["adaptive"][0]["shares"]:
            told = (ranged([run[key][modality] for run in one["adaptive"]]) for key in ("shares", "skipped"))
            rows.append((name, modality, *told, alone))
    return table(
        ("set", "modality", "tokens read (%)", "left out (% of rows)", "rows with one modality alone (%)"), rows
    )


def plot(record: Record, path: Path) -> None:
    """Latency against quality lost, and the shares under noise: one picture."""
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams["svg.hashsalt"] = "triptych"
    from matplotlib import pyplot as plt

    sets = record["sets"]
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.6), constrained_layout=True)
    for name, one in sets.items():
        found = {key: statistics.mean(values) for key, values in changes(one).items()}
        left.plot(100 * found["latency"], 100 * found["drop"], "o", color=ACCENT)
        left.annotate(name, (100 * found["latency"], 100 * found["drop"]), xytext=(4, 4), textcoords="offset points")
    left.axvline(100 * (1 - LESS_LATENCY), color=QUIET)
    left.axhline(100 * WITHIN, color=QUIET)
    left.set(xlabel="latency, % of the network without a gate", ylabel="quality lost, points")
    for name, one in sets.items():
        for modality, points in one["noise"][0].items():
            strengths = [100 * point["strength"] for point in points]
            right.plot(strengths, [100 * v for v in swept(one, modality)], label=f"{name} {modality}")
    right.set(xlabel="noise in that modality, %", ylabel="tokens of it read, %", ylim=(0, None))
    right.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(colors=INK)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    plt.close(figure)


if __name__ == "__main__":
    write_page(ROOT / "docs")
    print(json.dumps({"page": "docs/adaptive.md"}))
