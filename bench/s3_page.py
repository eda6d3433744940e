"""docs/s3.md and its pictures from docs/results/s3.json and nothing else: the figures, and what follows by rule.

python bench/s3_page.py
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fusion_page import LOWER_IS_BETTER, interval
from words import ms, signed, table

ROOT = Path(__file__).resolve().parents[1]
STAGES = (("fresh", "fresh weights"), ("specialised", "specialised"), ("curve", "selected"), ("auto", "sparsified"))

ABOUT = "Written by `python bench/s3.py` from [results/s3.json](results/s3.json). Do not edit."
ABOUT_RULES = """Every figure is what a linear probe reads of the test rows from frozen vectors, mean over the seeds and
half of the 95 % interval (Student's t). The *peak* is the share p of the best mean over the seeds on test, so it
flatters; *automatic p* was chosen on validation alone, *distance* is how far its test quality is from the best p's of
the same seed. The reverse U *appears* where the peak lies between the ends and its gains over p = 1 and over the
smallest p both have intervals above zero; *in the mean only* where the peak lies between the ends and they do not."""
ABOUT_STAGES = """All routes are worked on until the last column, which has automatic p. *score* is the same p by a
fixed score measured on training rows, which is how a bundle ships it. *random* leaves out as many routes, whichever."""
ABOUT_FACTORS = """Two modalities whose frames show, four at a time, a factor that both share, one that only that
modality has, and a part of a sum that only both together tell; a probe guesses among four values (chance 0.25).
*together* is read by one linear probe of both vectors; *joined* reads each part apart and adds. Bits: what the best
expert of a token tells about the factor that the token shows; what the most telling expert says of a factor's value (2
at most); *selectivity* is the largest share of one factor in what an expert tells."""
ABOUT_SPEED = """Median of one exported encoder at batch 1, one thread, in turns. *row* sorts each row's scores, *score*
compares them with a fixed number; both work on the kept routes only."""

Record = Mapping[str, Any]


def write_page(docs: Path) -> None:
    """Write the page and a picture of every set."""
    record = json.loads((docs / "results" / "s3.json").read_text())
    (docs / "s3.md").write_text(page(record))
    if record["sets"]:
        draw(record, docs / "results")


def page(record: Record) -> str:
    """The whole page as Markdown."""
    parts = ["# S3: specialise, select, sparsify", ABOUT, protocol(record)]
    if record["sets"]:
        parts += ["## Does fewer routes read better?", ABOUT_RULES, summary(record), "## What each stage adds"]
        parts += [ABOUT_STAGES, stages(record), "## Against controls trained as long", controls(record)]
        parts += ["## Curves", *(f"![{name}](results/s3-{name}.png)\n\n{curves(one)}" for name, one in sets(record))]
    if "factors" in record:
        parts += ["## Made factors", ABOUT_FACTORS, factors(record["factors"])]
    if "speed" in record:
        parts += ["## What the exported graph saves", ABOUT_SPEED, speed(record["speed"])]
    return "\n\n".join(parts) + "\n"


def protocol(record: Record) -> str:
    machine = record["environment"]
    return (
        f"Width 64, two blocks that all modalities share; {record['steps']} steps of specialising and"
        f" {record['select_steps']} of selecting, controls their sum; at most {record['rows']:,} training rows."
        f" {machine['cpu']}, torch {machine['packages']['torch']}. So short a training tells about small networks on"
        f" these sets, not about the paper's. Seeds: {seeds(record)}; a figure of one seed has no interval."
    )


def seeds(record: Record) -> str:
    """How many runs there are of each set; the fewest, where its rows differ."""
    return ", ".join(f"{name} {min(map(len, one['runs'].values()))}" for name, one in sets(record)) or "none"


def sets(record: Record) -> list[tuple[str, Record]]:
    return list(record["sets"].items())


def mixtures(one: Record) -> dict[str, Sequence[Record]]:
    """Runs of S3 by granularity, in order."""
    found = {name.removeprefix("s3-"): runs for name, runs in one["runs"].items() if name.startswith("s3-")}
    return {chi: found[chi] for chi in sorted(found, key=int)}


def sign(one: Record) -> float:
    return -1.0 if one["metric"] in LOWER_IS_BETTER else 1.0


# ---- figures


def shares(runs: Sequence[Record]) -> list[str]:
    """From all routes to the fewest."""
    return sorted(runs[0]["curve"], key=float, reverse=True)


def peak(runs: Sequence[Record], up: float) -> str:
    """The share of the best mean."""
    return max(shares(runs), key=lambda p: up * statistics.mean(run["curve"][p] for run in runs))


def gain(runs: Sequence[Record], p: str, other: str, up: float) -> tuple[float, float | None]:
    """By how much p is better than another share, seed by seed."""
    return interval([up * (run["curve"][p] - run["curve"][other]) for run in runs])


def reverse_u(runs: Sequence[Record], up: float) -> str:
    """Whether quality rises and falls again as routes go."""
    found, (first, *_, last) = peak(runs, up), shares(runs)
    if found in {first, last}:
        return "no"
    gains = [gain(runs, found, end, up) for end in (first, last)]
    return "yes" if all(half is not None and mean - half > 0 for mean, half in gains) else "in the mean only"


def distance(run: Record, up: float) -> float:
    """How much worse automatic p is than the best p of the same run: zero or more."""
    best = max(up * value for value in run["curve"].values())
    return best - up * run["curve"][f"{run['auto']['share']:g}"]


def value_of(run: Record, stage: str) -> float:
    """Quality of a run after a stage."""
    if stage == "curve":
        return float(run["curve"]["1"])
    if stage == "auto":
        return float(run["curve"][f"{run['auto']['share']:g}"])
    return float(run[stage])


def added(record: Record, verb: str) -> str:
    """What a stage changes in what a probe reads, in points over all sets and mixtures, in words."""
    before, after = {"specialise": (0, 1), "select": (1, 2), "sparsify": (2, 3)}[verb]
    gains = [
        100 * sign(one) * (value_of(run, STAGES[after][0]) - value_of(run, STAGES[before][0]))
        for _, one in sets(record)
        for runs in mixtures(one).values()
        for run in runs
    ]
    up = sum(gain > 0 for gain in gains)
    return f"{signed(statistics.mean(gains))} points on average, better in {up} of {len(gains)} runs"


def left_out(record: Record, way: str) -> str | None:
    """What leaving half of the routes out this way changes, in points over all sets and mixtures, in words.

    A fixed score has no such half and is told at the automatic p.
    """
    found = {
        "row": lambda run: run["curve"]["0.5"],
        "random": lambda run: run["random"]["0.5"],
        "score": lambda run: run["fixed"],
    }
    if way not in found:
        return None
    gains = [
        100 * sign(one) * (found[way](run) - run["curve"]["1"])
        for _, one in sets(record)
        for runs in mixtures(one).values()
        for run in runs
    ]
    at = "with automatic p" if way == "score" else "with half of the routes"
    return f"{signed(statistics.mean(gains))} points on average {at}, against all of them"


def best_control(one: Record) -> str:
    """The control of the best mean."""
    names = [name for name in one["runs"] if not name.startswith("s3-")]
    return max(names, key=lambda n: sign(one) * statistics.mean(run["quality"] for run in one["runs"][n]))


# ---- tables


def shown(values: Sequence[float]) -> str:
    mean, half = interval(values)
    return f"{mean:.3f}" if half is None else f"{mean:.3f} ± {half:.3f}"


def summary(record: Record) -> str:
    head = ("set", "χ", "reverse U", "peak p", "peak", "p = 1", "automatic p", "interval of p", "distance")
    rows = []
    for name, one in sets(record):
        for chi, runs in mixtures(one).items():
            top = peak(runs, sign(one))
            autos = [run["auto"] for run in runs]
            rows.append(
                (
                    name,
                    chi,
                    reverse_u(runs, sign(one)),
                    top,
                    shown([run["curve"][top] for run in runs]),
                    shown([run["curve"]["1"] for run in runs]),
                    ", ".join(f"{auto['share']:g}" for auto in autos),
                    ", ".join(f"{auto['interval'][0]:g}–{auto['interval'][1]:g}" for auto in autos),
                    f"{statistics.mean(distance(run, sign(one)) for run in runs):.3f}",
                )
            )
    counted = [row[2] for row in rows]
    told = (
        f"The reverse U appears in {counted.count('yes')} of {len(rows)} cases, in the mean only in"
        f" {counted.count('in the mean only')}, not at all in {counted.count('no')}."
    )
    return f"{told}\n\n{table(head, rows)}"


def stages(record: Record) -> str:
    rows = []
    for name, one in sets(record):
        for chi, runs in mixtures(one).items():
            steps = [shown([value_of(run, stage) for run in runs]) for stage, _ in STAGES]
            fixed = shown([run["fixed"] for run in runs])
            gaps = [
                statistics.mean(sign(one) * (run["curve"][p] - run["random"][p]) for run in runs)
                for p in sorted(runs[0]["random"], key=float, reverse=True)
            ]
            rows.append((name, chi, *steps, fixed, ", ".join(map(signed, gaps))))
    levels = sorted(next(iter(mixtures(sets(record)[0][1]).values()))[0]["random"], key=float, reverse=True)
    head = ("set", "χ", *(title for _, title in STAGES), "score", f"best over random at p = {', '.join(levels)}")
    return table(head, rows)


def controls(record: Record) -> str:
    names = sorted({n for _, one in sets(record) for n in one["runs"] if not n.startswith("s3-")})
    rows = []
    for name, one in sets(record):
        if not any(n in one["runs"] for n in names):
            continue
        qualities = [shown([r["quality"] for r in one["runs"][n]]) if n in one["runs"] else "–" for n in names]
        best = best_control(one)
        level = statistics.mean(run["quality"] for run in one["runs"][best])
        against = [
            f"χ={chi} {signed(sign(one) * (statistics.mean(value_of(run, 'auto') for run in runs) - level))}"
            for chi, runs in mixtures(one).items()
        ]
        rows.append((name, one["metric"], *qualities, f"{best}: {'; '.join(against)}"))
    return table(("set", "metric", *names, "S3 with automatic p over the best control"), rows)


def curves(one: Record) -> str:
    found = mixtures(one)
    if not found:
        return "No S3 yet."
    ps = shares(next(iter(found.values())))
    rows = [(chi, *(shown([run["curve"][p] for run in runs]) for p in ps)) for chi, runs in found.items()]
    return table(("χ", *(f"p = {p}" for p in ps)), rows)


def factors(record: Mapping[str, Sequence[Record]]) -> str:
    known = list(next(iter(record.values()))[0]["accuracy"])
    rows, more = [], []
    for name, runs in record.items():
        accuracy = [shown([run["accuracy"][factor] for run in runs]) for factor in known]
        rows.append((name, *accuracy, shown([run["joined"] for run in runs])))
        if "place_bits" in runs[0]:
            bits = [shown([run["value_bits"][part] for run in runs]) for part in ("shared", "unique", "part")]
            place, select = (shown([run[key] for run in runs]) for key in ("place_bits", "selectivity"))
            more.append((name, place, *bits, select))
    head = ("bits", "of the factor shown", "value, shared", "value, unique", "value, part", "selectivity")
    return f"{lost(record)}\n\n{table(('', *known, 'joined'), rows)}\n\n{table(head, more)}"


def lost(record: Mapping[str, Sequence[Record]]) -> str:
    """Whether the cross-only control knows less of the unique factors than S3, in a sentence."""
    if not {"cross", "s3"} <= record.keys():
        return ""

    def unique(run: Record) -> float:
        return statistics.mean(v for name, v in run["accuracy"].items() if name.startswith("unique"))

    pairs = zip(record["s3"], record["cross"], strict=True)
    mean, half = interval([unique(ours) - unique(theirs) for ours, theirs in pairs])
    sure = half is not None and abs(mean) > half
    told = "less" if mean > 0 else "more"
    size = f"{abs(mean):.3f}" + ("" if half is None else f" ± {half:.3f}")
    return f"Trained across modalities only, a network knows {told} of the unique factors than S3, by {size}" + (
        "." if sure else ", which these seeds do not show for certain."
    )


def speed(record: Record) -> str:
    ps = sorted(record["p50_s"]["row"], key=float, reverse=True)
    whole = record["p50_s"]["all"]["1"]

    def cell(found: Mapping[str, float], p: str) -> str:
        return f"{ms(found[p])} ({found[p] / whole:.2f})" if p in found else "–"

    rows = [(way, *(cell(found, p) for p in ps)) for way, found in record["p50_s"].items()]
    about = (
        f"χ = {record['granularity']}, {record['tokens']} tokens; milliseconds, and the ratio to the plain network's."
    )
    return f"{about}\n\n{table(('', *(f'p = {p}' for p in ps)), rows)}"


# ---- pictures


def draw(record: Record, folder: Path) -> None:
    from triptych.report.plots import write_curves

    for name, one in sets(record):
        lines = {
            f"S3, χ = {chi}": [
                (float(p), *(part or 0.0 for part in interval([run["curve"][p] for run in runs]))) for p in shares(runs)
            ]
            for chi, runs in mixtures(one).items()
        }
        levels = {
            n: statistics.mean(run["quality"] for run in runs)
            for n, runs in one["runs"].items()
            if not n.startswith("s3-")
        }
        if lines:
            x, y = "share of routes that are worked on, p", one["metric"]
            write_curves(folder / f"s3-{name}.png", {name: lines}, {name: levels}, x=x, y=y)


if __name__ == "__main__":
    write_page(ROOT / "docs")
    print(json.dumps({"page": "docs/s3.md"}))
