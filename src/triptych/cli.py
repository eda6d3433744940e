"""The command line: parse, call one verb, show a table, end with one JSON line on stdout."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, CycloptsError, Group, Parameter
from cyclopts.config import Dict

from triptych.cli_index import index
from triptych.cli_options import (
    DEFAULT_DATA,
    DataOptions,
    Overrides,
    config_file,
    literals,
    name_candidates,
    read,
    split_pair,
)
from triptych.cli_predict import predict
from triptych.cli_show import Plan, Screen, emit, without_samples
from triptych.errors import TriptychError

COMMON = Group("For every command", sort_key=99)
USAGE_ERROR, CRASH, INTERRUPTED = 2, 1, 130

app = App(
    name="triptych",
    help="Make multimodal models small and fast, and prove it.",
    help_format="plaintext",
    help_epilogue=(
        "Examples:\n"
        "  triptych fit easy-vqa --budget p50=5ms,size=2MB,memory=40MB,drop=0.5 --out out/demo\n"
        "  triptych predict out/demo/bundle --image cat.png --text 'is it a cat?'\n"
        "  triptych measure out/a/bundle out/b/bundle --data data/clips --split test --json"
    ),
    version=lambda: version("triptych"),
    result_action="return_value",
    print_error=False,
    exit_on_error=False,
    suppress_keyboard_interrupt=False,
    default_parameter=Parameter(negative=()),
)
app.meta.group_parameters = COMMON
app.meta.suppress_keyboard_interrupt = False


def _examples(*lines: str) -> str:
    return "\n".join(["Examples:", *(f"  {line}" for line in lines)])


@app.command(
    help_epilogue=_examples(
        "triptych init data/clips",
        "triptych init clips.csv --target label",
        "triptych init products.csv --task retrieval --pair photo,title",
    )
)
def init(
    data: Path, *, target: str | None = None, task: Literal["retrieval"] | None = None, pair: str | None = None
) -> Plan:
    """Guess the schema of a folder or table and write dataset.toml for you to correct.

    Args:
        data: A folder with parquet files, or one CSV or parquet file.
        target: The column to predict; guessed where left out.
        task: retrieval, to find one modality by the other; it has no target.
        pair: Its query's and its target's modality, such as photo,title.
    """

    def run(screen: Screen) -> Mapping[str, Any]:
        from triptych.data.infer import write_dataset_toml

        path, notes = write_dataset_toml(data, target=target, task=task, pair=split_pair(pair))
        screen.say(path.read_text(encoding="utf-8"))
        return {"path": str(path), "notes": notes}

    return Plan("init", {"data": data, "target": target, "task": task, "pair": pair}, run)


@app.command(
    help_epilogue=_examples(
        "triptych fit data/clips --budget p50=5ms,size=2MB,memory=40MB,drop=0.5 --out out/clips",
        "triptych fit easy-vqa --budget size=1MB --out out/vqa --minutes 5 --seed 1 --train.batch_size 32",
        "triptych fit data/products --task retrieval --pair image,title --out out/products",
        "triptych fit data/products --recipe recipes/adapted_text.toml --out out/adapted",
        "triptych fit --config clips.toml --dry-run",
    )
)
def fit(
    data: str,
    *,
    budget: str = "",
    out: Path,
    seed: int = 0,
    threads: int = 1,
    minutes: float = 20.0,
    resume: bool = False,
    recipe: Path | None = None,
    train: Overrides = None,
    reading: DataOptions = DEFAULT_DATA,
) -> Plan:
    """Train, compress, measure and export a model within a budget: the whole chain.

    Args:
        data: A dataset folder, a CSV or parquet file, or easy-vqa.
        budget: Limits such as p50=5ms,size=2MB,memory=40MB,drop=0.5 (drop in points of quality), or
            shares of the reference such as p50=10%. Without limits: the smallest bundle within half a point.
        out: The folder for the bundle, the report and the checkpoints.
        seed: Fixes every random choice.
        threads: Threads that the measured engine may use.
        minutes: Wall time for the whole chain.
        resume: Go on from what a stopped run left in the folder.
        recipe: A TOML file that changes the reference: its sizes, its training, resting backbones and an adapter.
    """
    from triptych.search.budget import Budget

    limits = Budget.parse(budget)
    asked = {"resume": resume, "recipe": recipe, "train": literals(train)}
    options = {"data": data, "budget": asdict(limits), "out": out, "seed": seed, "threads": threads, "minutes": minutes}

    def run(screen: Screen) -> Mapping[str, Any]:
        from triptych.search.chain import fit_to_budget

        with screen.progress() as progress:
            line = fit_to_budget(
                read(data, reading),
                limits,
                out,
                minutes=minutes,
                seed=seed,
                threads=threads,
                progress=progress,
                resume=resume,
                train=literals(train),
                recipe=recipe,
            )
        screen.outcome(line)
        return line

    return Plan("fit", {**options, **asked, **asdict(reading)}, run, out)


@app.command(
    help_epilogue=_examples(
        "triptych compress out/clips/model --recipe recipes/lean.toml --data data/clips --out out/lean"
    )
)
def compress(
    model: Path,
    *,
    recipe: Path,
    data: str,
    out: Path,
    seed: int = 0,
    train: Overrides = None,
    reading: DataOptions = DEFAULT_DATA,
) -> Plan:
    """Apply the techniques of a recipe to a saved model, and save the result.

    Args:
        model: A saved model folder.
        recipe: A TOML file with one [[step]] per technique.
        data: The dataset to calibrate and train with.
        out: The folder for the compressed model.
        seed: Fixes every random choice.
    """

    def run(screen: Screen) -> Mapping[str, Any]:
        from triptych import algorithm, load_model, save_model
        from triptych.train import TrainConfig

        original, techniques = load_model(model), algorithm.load_recipe(recipe)
        config = TrainConfig.from_dict(literals(train)) if train else None
        with screen.progress() as progress:
            lean = algorithm.compress(
                original, techniques, read(data, reading), seed=seed, progress=progress, train=config
            )
        save_model(lean, out)
        before, after = (sum(p.numel() for p in m.parameters()) for m in (original, lean))
        flops = [sum(m.flops().values()) for m in (original, lean)]
        rows = [("parameters", f"{before:,}", f"{after:,}"), ("FLOPs", f"{flops[0]:,}", f"{flops[1]:,}")]
        screen.table(("", "before", "after"), rows)
        return {
            "model": str(out),
            "recipe": [repr(step) for step in techniques],
            "params_reference": before,
            "params": after,
            "flops_reference": flops[0],
            "flops": flops[1],
        }

    options = {"model": model, "recipe": recipe, "data": data, "out": out, "seed": seed}
    return Plan("compress", {**options, "train": literals(train), **asdict(reading)}, run, out)


@app.command(
    help_epilogue=_examples(
        "triptych measure out/clips/bundle --data data/clips --split test",
        "triptych measure before=out/a/model after=out/a/bundle --data data/clips --repeat 200 --out out/figures",
    )
)
def measure(
    *candidates: str,
    data: str,
    split: str = "test",
    repeat: int = 50,
    warmup: int = 5,
    threads: int = 1,
    out: Path | None = None,
    reading: DataOptions = DEFAULT_DATA,
) -> Plan:
    """Measure quality, latency, memory and size, interleaved, each candidate in a fresh process.

    Args:
        candidates: Bundles or saved models, as a path or as name=path; the first is what the others are compared to.
        data: The dataset to measure on.
        split: Which of its splits.
        repeat: Timed predictions for each candidate.
        warmup: Predictions before the first timed one.
        threads: Threads that the engine may use.
        out: A folder for reports.json with the raw samples, and the raw outputs.
    """
    named = name_candidates(candidates)

    def run(screen: Screen) -> Mapping[str, Any]:
        from triptych.measure import measure as take

        found = take(named, read(data, reading), split=split, repeat=repeat, warmup=warmup, threads=threads, folder=out)
        records = {name: report.to_dict() for name, report in found.items()}
        screen.reports(records)
        for name, report in found.items():
            screen.ledger(report, name)
        if out is not None:
            out.mkdir(parents=True, exist_ok=True)
            (out / "reports.json").write_text(json.dumps(records, allow_nan=False) + "\n", encoding="utf-8")
        return {"reports": {name: without_samples(record) for name, record in records.items()}}

    options = {"candidates": {k: str(v) for k, v in named.items()}, "data": data, "split": split, "repeat": repeat}
    return Plan("measure", {**options, "warmup": warmup, "threads": threads, "out": out, **asdict(reading)}, run, out)


@app.command(help_epilogue=_examples("triptych export out/clips/model --data data/clips --out out/clips/bundle"))
def export(model: Path, *, data: str, out: Path, reading: DataOptions = DEFAULT_DATA) -> Plan:
    """Write a bundle that runs without PyTorch; refused if it does not answer as the model does.

    Args:
        model: A saved model folder.
        data: The dataset; a few of its rows become the bundle's golden vectors.
        out: The bundle's folder.
    """

    def run(screen: Screen) -> Mapping[str, Any]:
        from triptych import load_model
        from triptych.system.bundle.export import export as write

        folder = write(load_model(model), out, read(data, reading))
        size = sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())
        screen.say(f"wrote {folder}")
        return {"bundle": str(folder), "bundle_bytes": size}

    return Plan("export", {"model": model, "data": data, "out": out, **asdict(reading)}, run)


app.command(
    predict,
    help_epilogue=_examples(
        "triptych predict out/clips/bundle --image cat.png --audio meow.wav --text 'a cat'",
        "triptych predict out/clips/bundle --rows rows.jsonl --out predictions.jsonl",
        "triptych predict out/clips/bundle --data data/clips --split test --out predictions.jsonl",
        "triptych predict out/products/bundle --image shoe.jpg --index titles.safetensors --k 5",
    ),
)
app.command(
    index,
    help_epilogue=_examples(
        "triptych index out/products/bundle --data data/products --split test --out titles.safetensors",
        "triptych index out/products/bundle --rows photos.jsonl --modality image --out photos.safetensors",
    ),
)


@app.command(help_epilogue=_examples("triptych report out/clips"))
def report(folder: Path, /) -> Plan:
    """Write report.html and the plots again from a run's run.json.

    Args:
        folder: The folder that `triptych fit --out` wrote.
    """

    def run(screen: Screen) -> Mapping[str, Any]:
        from triptych.report import RunRecord, write_report

        path = write_report(RunRecord.load(folder), folder)
        screen.say(f"wrote {path}")
        return {"report": str(path)}

    return Plan("report", {"folder": folder}, run)


@app.command(help_epilogue=_examples("triptych inspect out/clips/bundle", "triptych inspect data/clips"))
def inspect(path: str, /) -> Plan:
    """Show what a dataset, a saved model or a bundle is; a bundle's hashes are verified.

    Args:
        path: A dataset, a saved model folder or a bundle.
    """

    def run(screen: Screen) -> Mapping[str, Any]:
        from triptych.cli_inspect import look

        return look(path, screen)

    return Plan("inspect", {"path": path}, run)


@app.meta.default
def launch(
    *tokens: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
    config: Path | None = None,
    dry_run: bool = False,
    json: bool = False,
    debug: bool = False,
) -> None:
    """Run one command.

    Args:
        config: A TOML file with the command's options; the command line overrides it.
        dry_run: Resolve every option, write the plan (plan.json where the command has --out) and stop.
        json: Print nothing but the JSON line.
        debug: Show the traceback of an error.
    """
    del debug  # `main` reads it, since an error may come before this
    if config is not None:
        app.config = (Dict(config_file(config), use_commands_as_keys=False, source=str(config)),)
    plan = app(tokens)
    if isinstance(plan, Plan):
        emit(plan.write() if dry_run else plan.run(Screen(quiet=json)))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.  Returns the exit code: 0, 2 for wrong usage or data, 1 for a crash."""
    tokens = list(sys.argv[1:] if argv is None else argv)
    app.config = ()
    try:
        app.meta(tokens)
    except (Exception, KeyboardInterrupt) as error:
        if "--debug" in tokens:
            raise
        return _complain(error)
    return 0


def _complain(error: BaseException) -> int:
    """One line on stderr for people, one JSON line on stdout for programs."""
    message = " ".join(str(error).split()) or type(error).__name__
    kind = type(error).__name__
    if isinstance(error, KeyboardInterrupt):
        code, message = INTERRUPTED, message if message != kind else "interrupted"
    elif isinstance(error, TriptychError | CycloptsError | OSError):
        code = USAGE_ERROR
    else:
        code, message = CRASH, f"{message} (a defect in Triptych; run again with --debug for the traceback)"
    sys.stderr.write(f"triptych: {message}\n")
    emit({"error": message, "type": kind})
    return code


if __name__ == "__main__":
    sys.exit(main())
