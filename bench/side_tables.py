"""Sections of docs/results.md that smaller scripts of `bench/` measured: one function each, and a line in `TABLES`."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

from words import mb, ms, share, table


def side_tables(folder: Path) -> str:
    """What the smaller scripts of `bench/` measured."""
    return "\n\n".join(part for part in (make(folder) for make in TABLES) if part)


def options_table(folder: Path) -> str:
    """What each option of a session buys, from `bench/session_options.py`; nothing where that has not run."""
    path = folder / "session-options.json"
    if not path.is_file():
        return ""
    record = json.loads(path.read_text())
    about = (
        "The same graph with one option changed at a time, one thread, each reading in a fresh process: median of"
        f" {record['rounds']} rounds. Memory is the peak above Python, numpy and onnxruntime."
    )
    parts = ["## Options of the runtime", about]
    for name, network in record["networks"].items():
        usual = network["options"]["as shipped"]["p50_s"]
        rows = [
            (option, ms(r["p50_s"]), share(r["p50_s"] / usual), ms(r["load_s"]), mb(r["peak_bytes"]))
            for option, r in network["options"].items()
        ]
        head = (f"{name}, {network['params'] / 1e6:.2f} M parameters", "p50 (ms)", "ratio", "load (ms)", "memory (MB)")
        parts.append(table(head, rows))
    return "\n\n".join(parts)


def precision_table(folder: Path) -> str:
    """Seconds of a training step, from `bench/train_precision.py`; nothing where it has not run."""
    path = folder / "train-precision.json"
    if not path.is_file():
        return ""
    record = json.loads(path.read_text())
    ways = list(next(iter(record["step_s"].values())))
    rows = [[width, *(ms(found[way]) for way in ways)] for width, found in record["step_s"].items()]
    told = f"Milliseconds of one training step by width, precision and attention kernel, {record['threads']} thread(s)."
    return "\n\n".join(["## Precision of training", told, table(["width", *ways], rows)])


def retrieval_table(folder: Path) -> str:
    """Finding pictures by titles and back, from `bench/retrieval.py`; nothing where that has not run."""
    path = folder / "retrieval.json"
    if not path.is_file():
        return ""
    record = json.loads(path.read_text())
    first, second = record["pair"]
    seeds = len(record["losses"][record["chosen"]]["runs"])
    limits = "; ".join(
        f"{name.replace('_', ' ')} {found['value']:.3f}, asked {found['limit']:.2f}"
        f" ({'met' if found['met'] else 'missed'})"
        for name, found in record["against"].items()
    )
    about = (
        f"{record['dataset']['name'].capitalize()}, {first} and {second}: {record['encoders']}, heads trained,"
        f" {seeds} seeds; every one of the {record['dataset']['rows']['test']} test rows against all others. Mean,"
        f" least and most over the seeds. `{record['chosen']}` is the loss that was better on validation. {limits}."
    )
    ways = [f"{one}_to_{other}" for one, other in ((first, second), (second, first))]
    head = ["loss", *(f"{way.replace('_', ' ')}, {what}" for way in ways for what in ("R@1", "R@10", "median rank"))]
    rows = []
    for loss, found in record["losses"].items():
        cells = [loss]
        for way in ways:
            cells += [ranged(found["test"][f"{way}_recall_at_{most}"]) for most in (1, 10)]
            cells.append(f"{found['test'][f'{way}_median_rank']['mean']:.1f}")
        rows.append(cells)
    return "\n\n".join(["## Retrieval", about, table(head, rows), *from_bundle(record)])


def from_bundle(record: dict[str, Any]) -> list[str]:
    """The same searches by the exported bundle, beside those of the network that it was made from."""
    found = record.get("bundle")
    if found is None:
        return []
    network = next(run for run in record["losses"][record["chosen"]]["runs"] if run["seed"] == found["seed"])["test"]
    told = (
        f"The network of seed {found['seed']} as a bundle of {mb(found['size_bytes'])} MB, in a process without torch:"
        f" one side of all {found['rows']} test rows becomes an index, the other asks it. {ms(found['embed_s'])} ms per"
        f" embedding, {ms(found['search_s'])} ms per search."
    )
    rows = []
    for asking, asked in (record["pair"], record["pair"][::-1]):
        for most in (1, 10):
            name = f"{asking}_to_{asked}_recall_at_{most}"
            rows.append((f"{asking} to {asked}, R@{most}", f"{network[name]:.3f}", f"{found[name]:.3f}"))
    return [told, table(("search", "torch", "bundle"), rows)]


def quality_table(folder: Path) -> str:
    """What the recipes chosen for quality reach, from `bench/quality.py`; nothing where that has not run."""
    path = folder / "quality.json"
    if not path.is_file():
        return ""
    record = json.loads(path.read_text())
    rows = []
    for name, found in record["sets"].items():
        runs = found["runs"]
        cells = [f"{statistics.fmean(run[split]['quality'] for run in runs):.3f}" for split in ("validation", "test")]
        single = " ".join(f"{run['test']['quality']:.3f}" for run in runs)
        asked = f"{found['asked']:.3f} ({'met' if found['met'] else 'missed'})"
        rows.append((name, *cells, single, asked, f"{found['seconds'] / 60:.1f}", f"{runs[0]['params'] / 1e6:.2f} M"))
    about = (
        "Networks without a budget, by the recipes of `recipes/quality`, chosen on validation or, for mosi, by"
        " cross-validation within train, then judged on test. Earlier recipes for icu, mosi and (two of them) for"
        " ravdess were judged on test too, and mosi's test split was looked at while the cause of its lag was sought:"
        " these are no longer unseen. Minutes are those of the slowest seed, its teachers with it; parameters without a"
        " frozen backbone's. Sets without a row have no result yet."
    )
    head = ("set", "validation, mean", "test, mean", "test, each seed", "asked", "minutes", "parameters")
    return "\n\n".join(["## Quality without a budget", about, table(head, rows)])


def ranged(figure: dict[str, Any]) -> str:
    return f"{figure['mean']:.3f} [{figure['least']:.3f}, {figure['most']:.3f}]"


TABLES: tuple[Callable[[Path], str], ...] = (quality_table, retrieval_table, options_table, precision_table)
