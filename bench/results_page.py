"""docs/results.md, its plots and the README's table, from docs/results/*.json and nothing else.

    python bench/results_page.py

A figure is never written by hand: `docs/results/notes.toml` may add a line of words per set and target, as
`[mosi]` and `drop = "why"`, without numbers.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from side_tables import side_tables
from words import mb, ms, share, signed, span, table

ROOT = Path(__file__).resolve().parents[1]
ORDER = ("easy-vqa", "avdigits", "fashion", "sisfall", "ravdess", "icu", "mosi")
OURS, REFERENCE, INT8 = "triptych", "reference", "openvino-int8"
CANDIDATES = {
    "reference": "reference, PyTorch",
    "onnxruntime-float32": "reference, ONNX Runtime float32",
    "openvino-int8": "reference, OpenVINO int8 (NNCF)",
    "dense-half": "half the width and depth, ONNX Runtime float32",
    "dense-quarter": "a quarter of the width and depth, ONNX Runtime float32",
    "triptych": "**Triptych**",
}
COLOURS = {"reference": "#57606a", "onnxruntime-float32": "#9a6700", "openvino-int8": "#8250df", "triptych": "#cf222e"}
LADDER_COLOUR = "#0969da"
OPEN, CLOSE = "<!-- results -->", "<!-- /results -->"  # what stands between them in the README is written here

ABOUT = """Written by `python bench/results_page.py` from the files in [results/](results/), which
`python bench/main_job.py` measured. Do not edit."""
ABOUT_OVERVIEW = """The reference is a late-fusion transformer in PyTorch, the same shape for every set
(`recipes/reference.toml`). Quality is on the test split; latency is the median of one prediction with one thread,
decoded inputs to output, and its interval that of the ratio; memory is the peak above a bare Python process with numpy;
size is what must be shipped to run. Every network trains within a cap of wall time (the command of each set says how
long the whole fit may take). One seed. The commit named above is that of the measurement; a network may have been
trained by an earlier one, which its set names where it was kept. The budgets of easy-vqa and icu were
tightened by hand."""
ABOUT_TRAINING = """Best validation quality after each quarter of the reference's training. Where its cap of wall time
ended it while it was still gaining, it is weaker than it would be, and a drop below zero says no more than that."""
ABOUT_CONTROLS = """Seconds of Triptych divided by those of each control, round by round, with the 95 % interval; below
1, Triptych is faster. In brackets, by how much the control's quality is better (+) or worse (−)."""

Record = Mapping[str, Any]


def write_page(docs: Path) -> None:
    """Write the page and its plots, and the table in the README where it has a place for one."""
    records = load(docs / "results")
    for record in records:
        plot(record, docs / "results" / f"{record['set']}.png")
    (docs / "results.md").write_text(page(records, notes(docs / "results"), side_tables(docs / "results")))
    readme = docs.parent / "README.md"
    text = readme.read_text()
    if OPEN in text:
        readme.write_text(with_block(text, readme_block(records)))


def load(folder: Path) -> list[Record]:
    """Every set's record, in the order of `ORDER`."""
    paths = (folder / f"{name}.json" for name in ORDER)
    return [json.loads(path.read_text()) for path in paths if path.is_file()]


def notes(folder: Path) -> Mapping[str, Mapping[str, str]]:
    """Words per set and target.  Raises ValueError where a note holds a number: figures come from the measurements."""
    path = folder / "notes.toml"
    found = tomllib.loads(path.read_text()) if path.is_file() else {}
    for name, lines in found.items():
        for target, text in lines.items():
            if re.search(r"(?<![A-Za-z])\d", text):
                raise ValueError(f"{path}: the note {name}.{target} holds a number; say it in words: {text!r}")
    return found


def with_block(text: str, block: str) -> str:
    """`text` with what stands between the two marks replaced; where the second is missing, it is added."""
    before, _, rest = text.partition(OPEN)
    _, closed, after = rest.partition(CLOSE)
    return f"{before}{OPEN}\n{block}{CLOSE}{after if closed else rest}"


# ---- the page


def page(records: Sequence[Record], words: Mapping[str, Mapping[str, str]], side: str = "") -> str:
    """The whole page as Markdown."""
    parts = [
        "# Results",
        ABOUT,
    ]
    if not records:
        return "\n\n".join([*parts, "Nothing has been measured yet."]) + "\n"
    parts += [
        setting(records),
        "## From the reference to Triptych",
        ABOUT_OVERVIEW,
        overview(records),
        "## How the references trained",
        ABOUT_TRAINING,
        training_table(records),
        "## Targets",
        target_table(records),
        missed(records, words),
        "## Against the controls",
        ABOUT_CONTROLS,
        control_table(records),
        "## Fused against single modalities",
        "The same recipe with one modality at a time, quality on the test split.",
        single_table(records),
        *(part for record in records for part in section(record)),
        side,
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def readme_block(records: Sequence[Record]) -> str:
    """The first table, for the README."""
    return overview(records) + "\n" if records else "Nothing has been measured yet.\n"


def setting(records: Sequence[Record]) -> str:
    """Machine, versions and protocol."""
    lines = []
    for machine in unique([described(record) for record in records]):
        sets = ", ".join(record["set"] for record in records if described(record) == machine)
        lines.append(f"- {sets}: {machine}")
    return "Measured on:\n\n" + "\n".join(lines)


def described(record: Record) -> str:
    machine = record["environment"]["1"]
    packages = ", ".join(f"{n} {machine['packages'][n]}" for n in ("onnxruntime", "torch", "numpy"))
    peer = ", ".join(f"{n} {v}" for n, v in record["peers"][INT8]["versions"].items() if n != "numpy")
    protocol = machine["protocol"]
    return (
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_bytes'] / 2**30:.0f} GiB, Python"
        f" {machine['python']}, {packages}, {peer}; commit {named(machine['commit'])}; {protocol['rounds']} interleaved"
        f" rounds of {protocol['each']} predictions per candidate; load at the start {machine['load_1m']:.1f}"
    )


def unique(texts: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(texts))


def overview(records: Sequence[Record]) -> str:
    head = ("set", "metric", "quality", "drop [95 %]", "p50", "ratio [95 %]", "memory", "size", "fit")
    rows = []
    for record in records:
        before, after = (record["reports"]["1"][name] for name in (REFERENCE, OURS))
        rows.append(
            (
                record["set"],
                record["metric"],
                f"{before['quality']:.3f} → {after['quality']:.3f}",
                f"{signed(after['drop'])} {span(after['drop_interval'], signed)}",
                f"{ms(before['p50_s'])} → {ms(after['p50_s'])} ms",
                f"{share(after['p50_ratio'])} {span(after['p50_ratio_interval'], share)}",
                f"{mb(before['peak_bytes'])} → {mb(after['peak_bytes'])} MB",
                f"{mb(before['size_bytes'])} → {mb(after['size_bytes'])} MB",
                f"{record['fit']['wall_s'] / 60:.1f} min",
            )
        )
    return table(head, rows)


def training_table(records: Sequence[Record]) -> str:
    rows = []
    for record in records:
        found = record.get("training")
        if found is None:  # measured before it was kept
            continue
        quarters = ("–" if quality is None else f"{quality:.3f}" for quality in found["quarters"])
        rows.append((record["set"], f"{found['epochs']:.1f}", f"{found['seconds']:.0f}", *quarters, found["ended"]))
    return table(("set", "epochs", "seconds", "1/4", "2/4", "3/4", "4/4", "ended by"), rows)


TARGETS: Mapping[str, tuple[str, Callable[[float], str]]] = {
    "latency": ("latency ratio, at most {}", share),
    "memory": ("memory ratio, at most {}", share),
    "size": ("size ratio, at most {}", share),
    "drop": ("drop, at most {}", signed),
    "drop_upper": ("upper end of the drop's interval, at most {}", signed),
    "int8": ("times faster than OpenVINO int8, at least {}", lambda v: f"{v:.2f}"),
    "front": ("smaller dense networks as fast and as good, at most {}", lambda v: f"{v:.0f}"),
    "fused": ("the reference better than the best single modality by more than {}", signed),
    "fit_wall": ("seconds to fit, at most {}", lambda v: f"{v:.0f}"),
    "fit_memory": ("peak memory of the fit in GB, below {}", lambda v: f"{v / 1e9:.2f}"),
}


def target_table(records: Sequence[Record]) -> str:
    """Targets down, sets across; what was missed is bold."""
    rows = []
    for key, (words, show) in TARGETS.items():
        asked = [record["targets"][key] for record in records if key in record["targets"]]
        if not asked:
            continue
        cells = [_cell(record["targets"].get(key), show) for record in records]
        met = sum(target["met"] for target in asked)
        rows.append((words.format(show(asked[0]["limit"])), *cells, f"{met} of {len(asked)}"))
    return table(("target", *(record["set"] for record in records), "met"), rows)


def _cell(target: Mapping[str, Any] | None, show: Callable[[float], str]) -> str:
    if target is None:
        return "–"
    return show(target["value"]) if target["met"] else f"**{show(target['value'])} ✗**"


def missed(records: Sequence[Record], words: Mapping[str, Mapping[str, str]]) -> str:
    """A line per missed target, with its note."""
    lines = []
    for record in records:
        for key, (what, show) in TARGETS.items():
            target = record["targets"].get(key)
            if target is None or target["met"]:
                continue
            by = f" (by {', '.join(target['beaten_by'])})" if target.get("beaten_by") else ""
            why = words.get(record["set"], {}).get(key, "")
            figure = f"{show(target['value'])}{by}; asked: {what.format(show(target['limit']))}."
            lines.append(f"- **{record['set']}, {key.replace('_', ' ')}**: {figure}{' ' + why if why else ''}")
    if not lines:
        return "Every target was met on every set."
    return f"Missed, {len(lines)} of {sum(len(record['targets']) for record in records)}:\n\n" + "\n".join(lines)


def control_table(records: Sequence[Record]) -> str:
    names = [name for name in CANDIDATES if name != OURS]
    rows = []
    for record in records:
        reports = record["reports"]["1"]
        cells = []
        for name in names:
            found = record["direct"]["1"][name]
            better = reports[OURS]["drop"] - reports[name]["drop"]
            cells.append(f"{found['ratio']:.2f} {span(found['interval'], lambda v: f'{v:.2f}')} ({signed(better)})")
        rows.append((record["set"], *cells))
    return table(("set", *(CANDIDATES[name] for name in names)), rows)


def single_table(records: Sequence[Record]) -> str:
    rows = []
    for record in records:
        if not record["singles"]:  # asked for only where joining is known to gain
            continue
        reports = record["reports"]["1"]
        singles = ", ".join(f"{name} {single['test']['quality']:.3f}" for name, single in record["singles"].items())
        rows.append((record["set"], singles, f"{reports[REFERENCE]['quality']:.3f}", f"{reports[OURS]['quality']:.3f}"))
    return table(("set", "one modality", "reference, all", "Triptych, all"), rows)


def section(record: Record) -> list[str]:
    """One set: every candidate with one thread and with two, the plot, and how the network came about."""
    name, fit = record["set"], record["fit"]
    rows = [candidate_row(record, candidate) for candidate in CANDIDATES]
    head = ("candidate", record["metric"], "drop [95 %]", "p50, 1 thread", "ratio", "p50, 2 threads", "ratio", "memory")
    steps = "\n".join(f"{i}. {step_line(step)}" for i, step in enumerate(record["steps"], 1))
    tested = record["environment"]["1"]["dataset"]["rows"]
    return [
        f"## {name}",
        f"{fit_line(fit)}; {tested} test rows.",
        table((*head, "size"), rows),
        f"![Quality against latency on {name}](results/{name}.png)",
        f"Steps, with validation quality:\n\n{steps}",
        quantized(record["peers"][INT8]),
    ]


def fit_line(fit: Mapping[str, Any]) -> str:
    """What the fit cost, and the commit that trained and compressed the network, where it was kept."""
    commit = f", at commit {named(fit['commit'])}" if fit.get("commit") else ""
    return f"`{fit['command']}` took {fit['wall_s']:.0f} s and {fit['peak_rss_bytes'] / 1e9:.2f} GB{commit}"


def named(commit: str) -> str:
    return f"{commit[:12]}{' with changes' if '+' in commit else ''}"


def candidate_row(record: Record, name: str) -> tuple[str, ...]:
    one, two = (record["reports"][threads][name] for threads in ("1", "2"))
    return (
        CANDIDATES[name],
        f"{one['quality']:.3f} {span(one['quality_interval'], lambda v: f'{v:.3f}')}",
        f"{signed(one['drop'])} {span(one['drop_interval'], signed)}",
        f"{ms(one['p50_s'])} ms",
        f"{share(one['p50_ratio'])} {span(one['p50_ratio_interval'], share)}",
        f"{ms(two['p50_s'])} ms",
        f"{share(two['p50_ratio'])} {span(two['p50_ratio_interval'], share)}",
        f"{mb(one['peak_bytes'])} MB",
        f"{mb(one['size_bytes'])} MB",
    )


def quantized(peer: Mapping[str, Any]) -> str:
    """How the peer's graph was chosen, and that its conversion is exact."""
    tried = {way: found for way, found in peer["ways"].items() if way != "float32"}
    listed = ", ".join(f"`{w}` {found['validation']:.3f} in {ms(found['p50_s'])} ms" for w, found in tried.items())
    return (
        f"OpenVINO int8: `{peer['chosen']}`, calibrated on {peer['calibration_rows']} training rows, was chosen on"
        f" validation among {listed}; before quantization its outputs differ from PyTorch's by at most"
        f" {peer['ways']['float32']['largest_difference']:.1g}."
    )


def step_line(step: Mapping[str, Any]) -> str:
    figures = [f"quality {step['quality']:.3f}"] if step.get("quality") is not None else []
    figures += [f"{ms(step['p50_s'])} ms"] if step.get("p50_s") is not None else []
    figures += [f"{mb(step['size_bytes'])} MB"] if step.get("size_bytes") is not None else []
    return f"`{step['settings']}`: {', '.join(figures)}"


# ---- plots


def plot(record: Record, path: Path) -> None:
    """Quality against latency: intervals as bars, the smaller dense networks joined by a line."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.0), dpi=110, layout="constrained")
    axes = figure.add_subplot()
    reports = record["reports"]["1"]
    ladder = [reports[name] for name in ("onnxruntime-float32", "dense-half", "dense-quarter")]
    axes.plot([1e3 * r["p50_s"] for r in ladder], [r["quality"] for r in ladder], color=LADDER_COLOUR, lw=1, ls=":")
    for name, report in reports.items():
        quality, (low, high) = report["quality"], report["quality_interval"]
        bars = [[max(0.0, quality - low)], [max(0.0, high - quality)]]
        colour, label = COLOURS.get(name, LADDER_COLOUR), CANDIDATES[name].replace("**", "")
        marker = "*" if name == OURS else "o"
        size = 13 if name == OURS else 6
        axes.errorbar(
            1e3 * report["p50_s"], quality, bars, fmt=marker, ms=size, color=colour, elinewidth=0.8, label=label
        )
    axes.set_xscale("log")
    axes.set_xlabel("median latency of one prediction, one thread (ms)")
    axes.set_ylabel(f"{record['metric']} on test, 95 % interval")
    axes.set_title(record["set"])
    axes.grid(visible=True, which="both", lw=0.3)
    axes.legend(fontsize=7)
    figure.savefig(path, metadata={"Software": None})


if __name__ == "__main__":
    write_page(ROOT / "docs")
    print(
        json.dumps({"page": "docs/results.md", "sets": [record["set"] for record in load(ROOT / "docs" / "results")]})
    )
