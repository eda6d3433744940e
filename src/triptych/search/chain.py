"""The whole way: a dataset and a budget to a verified bundle and a report that proves its figures."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import numpy as np
from numpy.typing import NDArray

from triptych.algorithm import Context, Distill, Int8, Int8Weights, Technique
from triptych.errors import BudgetError, DataError
from triptych.measure import measure
from triptych.measure.quality import higher_is_better
from triptych.measure.report import Report
from triptych.model.adapt import merged
from triptych.model.multimodal import Multimodal
from triptych.model.store import load_model, save_model
from triptych.report import RunRecord, answers, examples, write_report
from triptych.search.budget import Budget
from triptych.search.probe import Probe, Prober
from triptych.search.recipes import reference_recipe
from triptych.search.search import SearchResult, Tried, search
from triptych.search.training_recipe import TrainingRecipe, read_training_recipe
from triptych.system.bundle.export import export
from triptych.system.bundle.graphs import export_graphs
from triptych.system.runtime import Point
from triptych.train import TrainConfig, evaluate, fit

if TYPE_CHECKING:
    from triptych.data.dataset import Dataset

Say = Callable[[object], None]
SHARES = {"reference": 0.50, "search": 0.14, "student": 0.25}  # of the wall time; the rest exports and measures
ENDINGS: tuple[Technique, ...] = (Int8Weights(), Int8())
MOST_TEACHERS = 4  # the reference among them
SLACK = 1e-9


def fit_to_budget(
    data: Dataset,
    budget: Budget | None = None,
    out: str | Path = "out",
    *,
    minutes: float = 20.0,
    seed: int = 0,
    threads: int = 1,
    progress: Say | None = None,
    resume: bool = False,
    train: Mapping[str, Any] | None = None,
    recipe: str | Path | None = None,
    repeat: int = 200,
) -> dict[str, Any]:
    """Train the reference, find and teach a network within the budget, write and measure its bundle, and report.

    budget:  None aims at the smallest bundle within half a point of quality
    out:     gets `reference/` and `student/` (networks), `bundle/`, `run.json`, `report.html` and `plots/`
    minutes: wall time for all of it; training is cut to fit
    threads: threads of the measured engines
    resume:  go on with what a stopped run left in `out`
    train:   changes to the training options of `recipes/reference.toml`
    recipe:  a file with changes to the reference, see `triptych.search.training_recipe`
    repeat:  timed predictions per candidate in the final measurement

    Returns the last line of `triptych fit`.  Raises BudgetError when no candidate keeps the limits.
    """
    chain = _Chain(data, budget or Budget(), Path(out), minutes, seed, threads, progress or (lambda _: None), resume)
    return chain.run(dict(train or {}), repeat, recipe)


@dataclass
@final
class _Chain:
    """One run: what it was asked and what it has found so far."""

    data: Dataset
    budget: Budget
    out: Path
    minutes: float
    seed: int
    threads: int
    say: Say
    resume: bool

    def __post_init__(self) -> None:
        missing = [name for name in ("train", "validation") if not len(self.data.splits.get(name, ()))]
        if missing:
            raise DataError(f"fit needs rows in the splits {missing}; give the dataset a train and a validation part")
        self.started = time.monotonic()
        self.reference_s: float | None = None  # not known of a reference that an earlier run trained
        self.steps: list[dict[str, Any]] = []
        self.rejected: list[dict[str, Any]] = []
        self.split = "test" if len(self.data.splits.get("test", ())) else "validation"

    def run(self, train: dict[str, Any], repeat: int, recipe: str | Path | None = None) -> dict[str, Any]:
        """Every stage, in order."""
        sizes, options = reference_recipe(self.data.name, self.data.schema.task)
        plan = TrainingRecipe(sizes, options) if recipe is None else read_training_recipe(recipe, sizes, options)
        config = TrainConfig.from_dict({**plan.train, **train, "seed": self.seed})
        config = dataclasses.replace(config, freeze=(*config.freeze, *plan.resting))
        reference = self._reference(plan, config)
        measured = measure({"reference": reference}, self.data, split="validation", threads=self.threads, parts=False)
        before = measured["reference"]
        self._step("reference", _told(plan), reference, before.p50_s, before.size_bytes)
        teachers = self._more_teachers(plan, config)
        config = dataclasses.replace(config, freeze=())  # what rested in the reference is not in every candidate
        found = self._search(reference, before, config)
        student = self._teach(found.best, reference, teachers, config)
        prober = Prober(reference, self.data.validation, reference_p50_s=before.p50_s or 0.0, threads=self.threads)
        lean = self._finish(student, reference, prober)
        save_model(lean, self.out / "student")
        return self._deliver(lean, repeat)

    # ---- stages

    def _reference(self, plan: TrainingRecipe, config: TrainConfig) -> Multimodal:
        done = self.out / "reference"
        if self.resume and (done / "model.json").exists():
            self.say("the reference is already trained")
            return load_model(done)
        self.say(f"training the reference on {self.data.name} ({len(self.data.train):,} rows)")
        limited = dataclasses.replace(config, max_seconds=60 * self.minutes * SHARES["reference"])
        folder, fresh = self.out / "training", plan.network(self.data.schema, seed=self.seed)
        model = merged(fit(fresh, self.data, limited, folder=folder, resume=self.resume, progress=self.say))
        save_model(model, done)
        self.reference_s = self._elapsed()
        self.say(f"reference: validation {evaluate(model, self.data.validation):.4f} after {self._elapsed():.0f} s")
        return model

    def _more_teachers(self, plan: TrainingRecipe, config: TrainConfig) -> tuple[Multimodal, ...]:
        """Networks like the reference from other seeds, as many as its unused share of the wall time allows.

        They only teach: the mean answer of several networks is better than one network's.
        """
        share, each = 60 * self.minutes * SHARES["reference"], self.reference_s
        teachers: list[Multimodal] = []
        for number in range(1, MOST_TEACHERS):
            folder = self.out / "teachers" / str(number)
            if self.resume and (folder / "model.json").exists():
                teachers.append(load_model(folder))
            elif each is not None and self._elapsed() + each <= share:
                self.say(f"time is left: training teacher {number + 1}")
                limited = dataclasses.replace(config, seed=config.seed + 1000 * number, max_seconds=each)
                fresh = plan.network(self.data.schema, seed=limited.seed)
                teachers.append(merged(fit(fresh, self.data, limited, progress=self.say)))
                save_model(teachers[-1], folder)
        return tuple(teachers)

    def _search(self, reference: Multimodal, before: Report, config: TrainConfig) -> SearchResult:
        seconds = max(20.0, 60 * self.minutes * SHARES["search"])
        self.say(f"searching for {seconds:.0f} s")
        brief = dataclasses.replace(
            config, epochs=12, average=0.98, max_seconds=seconds / 5, patience=None, token_dropout=0.0
        )
        found = search(
            reference,
            self._searchable(before),
            self.data,
            trials=40,
            seconds=seconds * 0.8,
            brief=brief,
            reference=before,
            threads=self.threads,
            seed=self.seed,
            folder=self.out / "search",
            progress=self.say,
        )
        self.rejected += [_turned_down(t) for t in found.trials if not t.kept]
        return found

    def _searchable(self, before: Report) -> Budget:
        """The limits that a search can check; memory and energy are checked on the finished bundle."""
        whole = self.budget.against(before)
        return dataclasses.replace(whole, peak_bytes=None, energy_j=None, min_quality=None)

    def _teach(
        self, tried: Tried, reference: Multimodal, teachers: tuple[Multimodal, ...], config: TrainConfig
    ) -> Multimodal:
        if tried.model is None:
            raise BudgetError("the search kept no trained candidate")
        self._step_of(tried)
        seconds = 60 * self.minutes * SHARES["student"]
        self.say(f"teaching candidate {tried.number} for at most {seconds:.0f} s")
        lesson = Distill(alpha=0.5, temperature=2.0, ask="once")
        hidden = 0.0 if self.data.schema.task == "retrieval" else 0.05  # half a pair teaches nothing
        limited = dataclasses.replace(
            config, epochs=400, max_seconds=seconds, patience=None, modality_dropout=hidden, token_dropout=0.0
        )
        context = Context(reference, self.data, self.seed, self.say, limited, teachers)
        taught = lesson.apply(tried.model, context)
        recipe = (*(repr(t) for t in tried.recipe), repr(lesson))
        taught.config = dataclasses.replace(taught.config, recipe=recipe)
        settings = f"{lesson!r}, {1 + len(teachers)} teachers" if teachers else repr(lesson)
        self._step("Distill", settings, taught, tried.report.p50_s, None)
        self.say(f"student: validation {self.steps[-1]['quality']:.4f}")
        return taught

    def _finish(self, student: Multimodal, reference: Multimodal, prober: Callable[[Multimodal], Probe]) -> Multimodal:
        """Try each ending; keep it where it is smaller or faster in measurement and costs no quality to speak of."""
        context = Context(reference, self.data, self.seed)
        best, cost = student, prober(student)
        quality = evaluate(student, self.data.validation)
        for ending in ENDINGS:
            candidate = ending.apply(best, context)
            candidate.config = dataclasses.replace(candidate.config, recipe=(*best.config.recipe, repr(ending)))
            probe, value = prober(candidate), evaluate(candidate, self.data.validation)
            gains = probe.size_bytes < 0.98 * cost.size_bytes or probe.p50_s < 0.98 * cost.p50_s
            slower = probe.p50_s > 1.1 * cost.p50_s and probe.size_bytes > 0.5 * cost.size_bytes
            drop = self._drop(quality, value)
            reason = "" if gains else "neither smaller nor faster in measurement"
            reason = reason or (f"slower: {probe.p50_s / cost.p50_s:.2f} times the seconds" if slower else "")
            reason = reason or (f"costs {drop:.4f} of quality" if drop > (self.budget.max_drop or 0.005) else "")
            step = _figures(type(ending).__name__, repr(ending), value, probe.p50_s, probe.size_bytes)
            cost_line = f"{1e3 * probe.p50_s:.3f} ms, {probe.size_bytes / 1e3:.0f} kB"
            self.say(f"{type(ending).__name__}: {cost_line}: {reason or 'kept'}")
            if reason:
                self.rejected.append({**step, "reason": reason})
            else:
                best, cost = candidate, probe
                self.steps.append(step)
        return best

    def _deliver(self, lean: Multimodal, repeat: int) -> dict[str, Any]:
        """Write the bundle, measure it against the reference, write it again with its figures, and report."""
        bundle, facts = self.out / "bundle", {"seed": self.seed, "minutes": self.minutes}
        self.say("writing and measuring the bundle")
        graphs = export_graphs(lean)
        export(lean, bundle, self.data, graphs=graphs, facts=facts)
        candidates = {"reference": self.out / "reference", "bundle": bundle}
        kept = self.out / "predictions"
        reports = measure(
            candidates, self.data, split=self.split, threads=self.threads, repeat=repeat, folder=kept, seed=self.seed
        )
        after = reports["bundle"]
        point = Point("full", lean.schema.names, "fused", p50_s=after.p50_s, quality=after.quality)
        export(lean, bundle, self.data, graphs=graphs, facts=facts, reports=reports, points=[point])
        line = self._headline(reports)
        outputs: NDArray[Any] = np.load(kept / str(after.predictions))["outputs"]
        rows = self.data.splits[self.split]
        record = RunRecord(
            dataset=self.data.name,
            schema=self.data.schema.to_dict(),
            budget=self._budget_record(reports["reference"]),
            reports={name: report.to_dict() for name, report in reports.items()},
            reference="reference",
            chosen="bundle",
            steps=self.steps,
            rejected=self.rejected,
            confusion=answers(outputs, np.asarray(rows.targets), self.data.schema),
            examples=examples(rows, outputs, self.data.schema),
            headline=line,
        )
        write_report(record, self.out)
        return line

    # ---- records

    def _headline(self, reports: Mapping[str, Report]) -> dict[str, Any]:
        before, after = reports["reference"], reports["bundle"]
        budget = self.budget.against(before)
        missed = {k: v for k, v in budget.excess(after).items() if v > SLACK}
        return {
            "dataset": self.data.name,
            "metric": self.data.schema.metric,
            "split": self.split,
            "quality_reference": before.quality,
            "quality": after.quality,
            "drop": after.drop,
            "drop_interval": after.drop_interval,
            "p50_s_reference": before.p50_s,
            "p50_s": after.p50_s,
            "p50_ratio": after.p50_ratio,
            "p50_ratio_interval": after.p50_ratio_interval,
            "peak_bytes_reference": before.peak_bytes,
            "peak_bytes": after.peak_bytes,
            "size_bytes_reference": before.size_bytes,
            "size_bytes": after.size_bytes,
            "loyalty": after.loyalty,
            **({"details": after.details} if after.details else {}),
            "threads": self.threads,
            "seed": self.seed,
            "missed": missed,
            "bundle": str(self.out / "bundle"),
            "report": str(self.out / "report.html"),
            "wall_s": round(self._elapsed(), 1),
        }

    def _budget_record(self, before: Report) -> dict[str, Any]:
        record = dataclasses.asdict(self.budget.against(before))
        return {k: v for k, v in record.items() if v is not None and k != "shares"}

    def _step(self, name: str, settings: str, model: Multimodal, p50_s: float | None, size_bytes: int | None) -> None:
        quality = evaluate(model, self.data.validation)
        self.steps.append(_figures(name, settings, quality, p50_s, size_bytes))

    def _step_of(self, tried: Tried) -> None:
        report, names = tried.report, " + ".join(type(t).__name__ for t in tried.recipe)
        settings = ", ".join(repr(t) for t in tried.recipe)
        step = _figures(names, settings, report.quality, report.p50_s, report.size_bytes)
        self.steps.append({**step, "note": "briefly trained; weighed as it will be stored", "seconds": tried.seconds})

    def _drop(self, before: float, after: float) -> float:
        return before - after if higher_is_better(self.data.schema.metric) else after - before

    def _elapsed(self) -> float:
        return time.monotonic() - self.started


def _told(plan: TrainingRecipe) -> str:
    """What the reference is, in words."""
    what = f"{plan.build['network'].replace('_', ' ')} of transformers"
    if plan.backbones:
        what += f" on resting backbones for {', '.join(plan.backbones)}"
    return what if plan.adapter is None else f"{what}, adapted by {plan.adapter.name}"


def _figures(
    name: str, settings: str, quality: float | None, p50_s: float | None, size_bytes: int | None
) -> dict[str, Any]:
    figures = {"quality": quality, "p50_s": p50_s, "size_bytes": size_bytes}
    return {"name": name, "settings": settings, **{k: v for k, v in figures.items() if v is not None}}


def _turned_down(tried: Tried) -> dict[str, Any]:
    names = " + ".join(type(t).__name__ for t in tried.recipe)
    step = _figures(names, _settings(tried.recipe), None, tried.report.p50_s, tried.report.size_bytes)
    return {**step, "reason": tried.reason}


def _settings(recipe: Sequence[Technique]) -> str:
    return ", ".join(repr(technique) for technique in recipe)
