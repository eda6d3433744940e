"""docs/fusion.md from docs/results/fusion.json and nothing else: the figures, and what follows from them by rule.

python bench/fusion_page.py
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from words import mb, ms, signed, table

ROOT = Path(__file__).resolve().parents[1]
T_95 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365, 9: 2.306, 10: 2.262}  # by seeds
LOWER_IS_BETTER = ("mae",)
ENGINE = "onnxruntime"  # whose growth the advice looks at: it is what ships
ENGINE_TITLES = {"onnxruntime": "The exported graph, ONNX Runtime", "pytorch": "PyTorch"}

ABOUT = "Written by `python bench/fusion.py` from [results/fusion.json](results/fusion.json). Do not edit."
ABOUT_RULES = """A fusion *keeps up* on a set where the 95 % interval of its distance from the set's best mean
(Student's t over the seeds, as wide as the seeds are few) holds zero. *Missing* is the mean distance from the best
fusion when one modality is left out of every test row, over all sets and modalities. Seconds and parameters are
geometric means over the sets of the ratio to the lowest one of each set. Every sentence below is chosen by these
figures."""
ABOUT_SETS = """Mean over the seeds on the test split and half of its 95 % interval; *without* is the mean quality when
that modality is left out of every row. Latency is the median of one prediction of the exported bundle, one thread."""
ABOUT_SCALING = """One layer of fusion over two modalities of as many tokens each. Exponents are fitted to the three
largest counts; a dash: memory did not grow."""

Record = Mapping[str, Any]


def write_page(docs: Path) -> None:
    """Write the page."""
    record = json.loads((docs / "results" / "fusion.json").read_text())
    (docs / "fusion.md").write_text(page(record))


def page(record: Record) -> str:
    """The whole page as Markdown."""
    parts = ["# Fusions: which one to use when", ABOUT]
    if record["sets"]:
        parts += [protocol(record), "## Which one to use", ABOUT_RULES, advice(record), overall(record)]
        parts += ["## Where exchanging tokens pays", exchange(record), "## Set by set", ABOUT_SETS]
        parts += [part for name in record["sets"] for part in (f"### {name}", set_table(record["sets"][name]))]
    else:
        parts.append("No set has been measured yet.")
    if "scaling" in record:
        parts += ["## How cost grows with tokens", ABOUT_SCALING, *scaling_tables(record["scaling"])]
    return "\n\n".join(parts) + "\n"


def protocol(record: Record) -> str:
    first = next(iter(record["sets"].values()))
    machine = first["environment"]
    seeds = max(len(f["quality"]) for s in record["sets"].values() for f in s["fusions"].values())
    commits = {c for s in record["sets"].values() for f in s["fusions"].values() for c in f["commits"]}
    limit = f", at most {record['seconds']:g} s each" if record.get("seconds") else ""
    return (
        f"Small networks that are alike but for the fusion, {seeds} seed(s), about {record['rows']:,} training rows per"
        f" network to whole epochs{limit}. {machine['cpu']}, one thread, torch {machine['packages']['torch']},"
        f" onnxruntime {machine['packages']['onnxruntime']}; trained at commit"
        f" {', '.join(sorted(c[:12] + (' with changes' if '+' in c else '') for c in commits)) or 'unknown'}."
        " So little training tells which fusion learns quickly, not which would win in the end."
    )


# ---- figures


def interval(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean over seeds and half of its 95 % interval, None for a single seed."""
    if len(values) < 2:
        return values[0], None
    return statistics.mean(values), T_95[len(values)] * statistics.stdev(values) / math.sqrt(len(values))


def goodness(found: Record, metric: str) -> list[float]:
    """Qualities by seed, higher is better."""
    return [-q if metric in LOWER_IS_BETTER else q for q in found["quality"]]


def distance(best: Sequence[float], other: Sequence[float]) -> tuple[float, float]:
    """By how much the mean of `best` is higher, and half of the interval of that; no width for single seeds."""
    gap = statistics.mean(best) - statistics.mean(other)
    few = min(len(best), len(other))
    if few < 2:
        return gap, 0.0
    spread = statistics.variance(best) / len(best) + statistics.variance(other) / len(other)
    return gap, T_95[few] * math.sqrt(spread)


def best_of(one: Record, names: Sequence[str] | None = None) -> str:
    """The fusion with the best mean on a set."""
    among = list(one["fusions"]) if names is None else [n for n in names if n in one["fusions"]]
    return max(among, key=lambda name: statistics.mean(goodness(one["fusions"][name], one["metric"])))


def keeps_up(one: Record, name: str) -> bool:
    best = goodness(one["fusions"][best_of(one)], one["metric"])
    gap, half = distance(best, goodness(one["fusions"][name], one["metric"]))
    return gap <= half


def shortfall(one: Record, name: str) -> float:
    """Distance of the mean from the best one, in units of the metric."""
    own, best = (statistics.mean(goodness(one["fusions"][n], one["metric"])) for n in (name, best_of(one)))
    return best - own


def missing(one: Record, name: str) -> float:
    """Mean distance from the best fusion over the modalities that are left out in turn."""
    sign = -1 if one["metric"] in LOWER_IS_BETTER else 1

    def left(fusion: str, gone: str) -> float:
        return sign * statistics.mean(one["fusions"][fusion]["without"][gone])

    gaps = [max(left(f, gone) for f in one["fusions"]) - left(name, gone) for gone in one["fusions"][name]["without"]]
    return statistics.mean(gaps)


def ratio(one: Record, name: str, cost: str) -> float:
    """A cost of a fusion by the lowest one of the set."""
    return float(one["fusions"][name][cost] / min(f[cost] for f in one["fusions"].values()))


def dominated(one: Record, name: str) -> bool:
    """Whether another fusion is at least as good and as fast on a set, and better in one of the two."""
    own = one["fusions"][name]

    def better(other: Record) -> bool:
        gap = statistics.mean(goodness(other, one["metric"])) - statistics.mean(goodness(own, one["metric"]))
        return gap >= 0 and other["p50_s"] <= own["p50_s"] and (gap > 0 or other["p50_s"] < own["p50_s"])

    return any(better(other) for other in one["fusions"].values())


def everywhere(record: Record) -> list[str]:
    """Fusions that were measured on every set."""
    common = set.intersection(*({*one["fusions"]} for one in record["sets"].values()))
    return sorted(common)


def summary(record: Record) -> dict[str, dict[str, float]]:
    """What the advice looks at, by fusion."""
    sets = list(record["sets"].values())
    return {
        name: {
            "kept": sum(keeps_up(one, name) for one in sets),
            "shortfall": statistics.mean(shortfall(one, name) for one in sets),
            "missing": statistics.mean(missing(one, name) for one in sets),
            "p50": statistics.geometric_mean([ratio(one, name, "p50_s") for one in sets]),
            "params": statistics.geometric_mean([ratio(one, name, "params") for one in sets]),
            "dominated": sum(dominated(one, name) for one in sets),
        }
        for name in everywhere(record)
    }


# ---- words


def advice(record: Record) -> str:
    """One line per need: the fusion that the figures choose for it, and those figures."""
    found, count = summary(record), len(record["sets"])

    def told(name: str) -> str:
        figures = found[name]
        return (
            f"keeps up on {figures['kept']:.0f} of {count} sets, {figures['p50']:.2f} times the seconds of the fastest"
        )

    def pick(need: str, rank: Callable[[str], Any], extra: Callable[[str], str] = lambda _: "") -> str:
        name = min(found, key=rank)
        return f"- **{need}: `{name}`** ({told(name)}{extra(name)})."

    lines = [
        pick("Without a special need", lambda n: (-found[n]["kept"], found[n]["p50"])),
        pick("The best mean quality", lambda n: found[n]["shortfall"], lambda n: behind(found[n]["shortfall"])),
        pick("Latency above all", lambda n: found[n]["p50"]),
        pick("Size above all", lambda n: found[n]["params"]),
        pick("A modality may be missing", lambda n: found[n]["missing"], lambda n: behind(found[n]["missing"])),
    ]
    if "scaling" in record:
        lines.append(long_sequences(record, found))
    useless = [f"`{name}`" for name in found if found[name]["dominated"] == count]
    if useless:
        lines.append(
            f"- **No first choice on any of these sets**: {', '.join(useless)}; on every set another fusion is at"
            " least as good in the mean and as fast."
        )
    return "\n".join(lines)


def behind(gap: float) -> str:
    return f", {gap:.3f} behind the best of each set in the mean"


def long_sequences(record: Record, found: Mapping[str, Mapping[str, float]]) -> str:
    """The fusion of tokens that is cheapest at the largest count, against the dense one."""
    scaling = record["scaling"]
    fusions, dense = scaling["fusions"], scaling["dense"]
    among = [name for name in fusions if name in record["of_tokens"]]
    largest = max(fusions[dense][ENGINE]["costs"], key=int)
    name = min(among, key=lambda n: fusions[n][ENGINE]["costs"][largest]["seconds"])
    cost, theirs = (fusions[n][ENGINE]["costs"][largest]["seconds"] for n in (name, dense))
    growth, other = (fusions[n][ENGINE]["growth"]["seconds"] for n in (name, dense))
    kept = f", and it keeps up on {found[name]['kept']:.0f} of {len(record['sets'])} sets" if name in found else ""
    return (
        f"- **Long sequences whose tokens should meet: `{name}`** (at {int(largest):,} tokens per modality"
        f" {theirs / cost:.1f} times as fast as dense cross-attention, `{dense}`; seconds grow as tokens^{growth:.2f}"
        f" against {other:.2f}{kept})."
    )


def overall(record: Record) -> str:
    count = len(record["sets"])
    found = summary(record)
    order = sorted(found, key=lambda n: (-found[n]["kept"], found[n]["p50"]))
    rows = [
        (
            name,
            f"{found[name]['kept']:.0f} of {count}",
            f"{found[name]['shortfall']:.3f}",
            f"{found[name]['missing']:.3f}",
            f"{found[name]['p50']:.2f}",
            f"{found[name]['params']:.2f}",
        )
        for name in order
    ]
    return table(("fusion", "keeps up", "behind the best", "missing", "seconds", "parameters"), rows)


def exchange(record: Record) -> str:
    """Per set: the best fusion that lets tokens meet against the best one that combines a vector per modality."""
    rows = []
    for name, one in record["sets"].items():
        of_tokens = [n for n in one["fusions"] if n in record["of_tokens"]]
        of_vectors = [n for n in one["fusions"] if n not in record["of_tokens"]]
        if not of_tokens or not of_vectors:
            continue
        tokens, vectors = best_of(one, of_tokens), best_of(one, of_vectors)
        gap, half = distance(*(goodness(one["fusions"][n], one["metric"]) for n in (tokens, vectors)))
        verdict = "pays" if gap > half else "costs quality" if -gap > half else "no difference that the seeds show"
        slower = one["fusions"][tokens]["p50_s"] / one["fusions"][vectors]["p50_s"]
        rows.append((name, tokens, vectors, f"{signed(gap)} ± {half:.3f}", f"{slower:.2f}", verdict))
    head = ("set", "best exchange of tokens", "best of vectors", "difference", "times the seconds", "exchange")
    return table(head, rows) if rows else "Fusions of one sort only were measured."


def set_table(one: Record) -> str:
    names = sorted(one["fusions"], key=lambda n: -statistics.mean(goodness(one["fusions"][n], one["metric"])))
    absent = list(next(iter(one["fusions"].values()))["without"])
    head = ("fusion", one["metric"], *(f"without {m}" for m in absent), "train (s)", "parameters", "MFLOPs", "p50 (ms)")
    rows = []
    for name in names:
        found = one["fusions"][name]
        mean, half = interval(found["quality"])
        shown = f"{mean:.3f}" if half is None else f"{mean:.3f} ± {half:.3f}"
        rows.append(
            (
                f"**{name}**" if keeps_up(one, name) else name,
                shown,
                *(f"{statistics.mean(found['without'][m]):.3f}" for m in absent),
                f"{statistics.mean(found['train_s']):.0f}",
                f"{found['params']:,}",
                f"{found['flops'] / 1e6:.2f}",
                ms(found["p50_s"]),
                mb(found["peak_bytes"]),
            )
        )
    return table((*head, "memory (MB)"), rows)


def scaling_tables(scaling: Record) -> list[str]:
    parts = []
    for engine, title in ENGINE_TITLES.items():
        found = {name: costs[engine] for name, costs in scaling["fusions"].items()}
        tokens = sorted(next(iter(found.values()))["costs"], key=int)
        rows = []
        for name, costs in found.items():
            cells = (costs["costs"][n] for n in tokens)
            shown = (f"{1e3 * c['seconds']:.3g} ms, {c['bytes'] / 1e6:.0f} MB" for c in cells)
            rows.append((name, *(exponent(costs["growth"][cost]) for cost in ("seconds", "bytes")), *shown))
        head = ("fusion", "time grows as tokens^", "memory as tokens^", *(f"{int(n):,}" for n in tokens))
        parts += [f"### {title}", table(head, rows)]
    return parts


def exponent(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


if __name__ == "__main__":
    write_page(ROOT / "docs")
    print(json.dumps({"page": "docs/fusion.md"}))
