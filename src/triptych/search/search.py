"""Find the recipe that serves a budget best: speed and size first, since they need no training; then quality."""

from __future__ import annotations

import dataclasses
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, final

import optuna
from optuna.samplers import TPESampler
from optuna.storages import InMemoryStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import Trial

from triptych.algorithm import Int8Weights, Technique, compress
from triptych.errors import BudgetError, RecipeError
from triptych.measure import measure
from triptych.measure.quality import higher_is_better
from triptych.measure.report import Report
from triptych.model.multimodal import Multimodal
from triptych.search.budget import Budget
from triptych.search.probe import Prober
from triptych.search.space import STARTS, Space, default_space
from triptych.train import TrainConfig, evaluate, fit

if TYPE_CHECKING:
    from triptych.data.dataset import Dataset

Say = Callable[[object], None]
SPARE = 0.95  # of a limit: a bundle holds a little more than a graph
Direction = Literal["minimize", "maximize"]
ENDING: tuple[Technique, ...] = (Int8Weights(),)
BRIEF = TrainConfig(epochs=8, label_smoothing=0.1, average=0.98, augment=0.5, max_seconds=45.0)


@dataclass(frozen=True)
class Tried:
    """One candidate of a search: what it is, what it cost, and why it was turned down, if it was.

    quality: on validation after brief training; None where the candidate was turned down before
    """

    number: int
    recipe: tuple[Technique, ...]
    report: Report
    reason: str = ""
    seconds: float = 0.0
    model: Multimodal | None = field(default=None, repr=False, compare=False)

    @property
    def kept(self) -> bool:
        """Whether it may be chosen."""
        return not self.reason


@dataclass(frozen=True)
class SearchResult:
    """best: the candidate to go on with; front: those that no other beats in quality, speed and size at once."""

    best: Tried
    front: tuple[Tried, ...]
    trials: tuple[Tried, ...]


def search(
    model: Multimodal,
    budget: Budget,
    data: Dataset,
    *,
    space: Space = default_space,
    trials: int = 40,
    seconds: float | None = None,
    brief: TrainConfig = BRIEF,
    ending: Sequence[Technique] = ENDING,
    reference: Report | None = None,
    starts: Sequence[Mapping[str, Any]] | None = None,
    threads: int = 1,
    seed: int = 0,
    folder: str | Path | None = None,
    progress: Say | None = None,
) -> SearchResult:
    """Look for the recipe whose network serves `budget` best, starting from the trained `model`.

    A candidate is first exported and timed without training; one that breaks a limit, or is neither faster nor smaller
    in measurement than `model`, is turned down there.  The others train briefly and are judged on validation: with
    upper limits the best quality wins, without any the smallest size within `max_drop`.

    space:     from an Optuna trial to a recipe;  starts: parameters to try first, in order
    seconds:   wall limit besides `trials`;  brief: how a candidate trains before it is judged
    ending:    techniques without training that will follow; candidates are timed and weighed with them
    reference: a measurement of `model`; None measures it
    folder:    keeps the trials, so that a search resumes and several processes can share it

    Raises BudgetError when no candidate keeps the limits.
    """
    reference = (
        reference or measure({"reference": model}, data, split="validation", threads=threads, parts=False)["reference"]
    )
    hunt = _Hunt(
        model, budget.against(reference), data, reference, brief, ending, threads, seed, progress or (lambda _: None)
    )
    study = _study(hunt, folder, seed)
    for start in starts if starts is not None else [s for group in STARTS.values() for s in group]:
        study.enqueue_trial(dict(start), skip_if_exists=True)
    study.optimize(lambda trial: hunt.try_one(trial, space), n_trials=trials, timeout=seconds)
    return hunt.result()


def _study(hunt: _Hunt, folder: str | Path | None, seed: int) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage: Any = InMemoryStorage()
    if folder is not None:
        Path(folder).mkdir(parents=True, exist_ok=True)
        storage = JournalStorage(JournalFileBackend(str(Path(folder) / "trials.log")))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = TPESampler(multivariate=True, group=True, seed=seed, n_startup_trials=5)
    return optuna.create_study(
        study_name="triptych", storage=storage, sampler=sampler, direction=hunt.direction, load_if_exists=True
    )


@final
@dataclass
class _Hunt:
    """Tries candidates against a resolved budget."""

    model: Multimodal
    budget: Budget
    data: Dataset
    reference: Report
    brief: TrainConfig
    ending: Sequence[Technique]
    threads: int
    seed: int
    say: Say
    tried: list[Tried] = field(default_factory=list)

    def __post_init__(self) -> None:
        p50_s = self.reference.p50_s
        if p50_s is None or self.reference.size_bytes is None:
            raise BudgetError("a search needs a reference that was measured for latency and size")
        self.goal = evaluate(self.model, self.data.validation)
        self.sign = 1.0 if higher_is_better(self.model.schema.metric) else -1.0
        self.smallest = not self.budget.limits
        self.direction: Direction = "minimize" if self.smallest else "maximize"
        self.prober = Prober(self.model, self.data.validation, reference_p50_s=p50_s, threads=self.threads)

    def try_one(self, trial: Trial, space: Space) -> float:
        """Build, time and perhaps train one candidate; gives its score to the sampler."""
        begun = time.monotonic()
        recipe = tuple(space(trial, self.model.schema))
        try:
            candidate = compress(self.model, recipe, self.data, seed=self.seed)
        except RecipeError as error:
            self._note(trial, Tried(trial.number, recipe, Report(), f"cannot be built: {error}"), {"unbuildable": 1.0})
            raise optuna.TrialPruned from error
        probe = self.prober(compress(candidate, self.ending, self.data, seed=self.seed))
        params = sum(p.numel() for p in candidate.parameters())
        report = Report(p50_s=probe.p50_s, size_bytes=probe.size_bytes, params=params)
        if reason := self._unfit(report):
            self._note(trial, Tried(trial.number, recipe, report, reason), {**self._excess(report), "useless": 1.0})
            raise optuna.TrialPruned
        trained = fit(candidate, self.data, self.brief, progress=self.say)
        quality = evaluate(trained, self.data.validation)
        report = dataclasses.replace(report, quality=quality, drop=self.sign * (self.goal - quality))
        seconds = time.monotonic() - begun
        excess = {"drop": self.sign * (self.goal - quality) - (self.budget.max_drop or 0.0)} if self.smallest else {}
        self._note(trial, Tried(trial.number, recipe, report, "", seconds, trained), excess)
        return float(report.size_bytes or 0) if self.smallest else self.sign * quality

    def result(self) -> SearchResult:
        """The best candidate and the front.  Raises BudgetError when none was kept."""
        kept = [t for t in self.tried if t.kept]
        if not kept:
            raise BudgetError(
                f"no candidate keeps the budget ({self._nearest()}); loosen a limit or try more candidates"
            )
        return SearchResult(
            min(kept, key=self._rank), tuple(t for t in kept if not self._beaten(t, kept)), tuple(self.tried)
        )

    def _nearest(self) -> str:
        timed = [t for t in self.tried if t.report.p50_s is not None]
        if not timed:
            return "; ".join(sorted({t.reason for t in self.tried})) or "nothing was tried"
        nearest = min(timed, key=lambda t: max(self._excess(t.report).values(), default=0.0))
        return f"the nearest of {len(self.tried)}: {_line(nearest, self.reference)}"

    def _rank(self, tried: Tried) -> tuple[float, float]:
        drop = tried.report.drop or 0.0
        if not self.smallest:
            return drop, float(tried.report.p50_s or 0)
        over = max(0.0, drop - (self.budget.max_drop or 0.0))
        return over, float(tried.report.size_bytes or 0)

    @staticmethod
    def _beaten(tried: Tried, others: Sequence[Tried]) -> bool:
        def costs(t: Tried) -> tuple[float, ...]:
            return t.report.drop or 0.0, t.report.p50_s or 0.0, float(t.report.size_bytes or 0)

        mine = costs(tried)
        return any(all(a <= b for a, b in zip(costs(o), mine, strict=True)) and costs(o) != mine for o in others)

    def _excess(self, report: Report) -> dict[str, float]:
        limits = self.budget.limits
        spare = {name: SPARE * limits[name] if name in limits else None for name in ("p50_s", "size_bytes")}
        return Budget(p50_s=spare["p50_s"], size_bytes=spare["size_bytes"], max_drop=None).excess(report)

    def _unfit(self, report: Report) -> str:
        over = [f"{name} is {value:+.0%} over its limit" for name, value in self._excess(report).items() if value > 0]
        if over:
            return ", ".join(over)
        faster = (report.p50_s or 0) < (self.reference.p50_s or 0)
        smaller = (report.size_bytes or 0) < (self.reference.size_bytes or 0)
        return "" if faster or smaller else "neither faster nor smaller in measurement than the reference"

    def _note(self, trial: Trial, tried: Tried, excess: Mapping[str, float]) -> None:
        for name, value in excess.items():
            trial.set_constraint(name, value)
        trial.set_user_attr("reason", tried.reason)
        self.tried.append(tried)
        self.say(_line(tried, self.reference))


def _line(tried: Tried, reference: Report) -> str:
    report = tried.report
    what = ", ".join(type(t).__name__ for t in tried.recipe)
    cost = ""
    if report.p50_s and report.size_bytes:
        cost = f"{1e3 * report.p50_s:.2f} ms, {report.size_bytes / 1e3:.0f} kB"
        cost += f" ({report.p50_s / (reference.p50_s or 1):.0%}, {report.size_bytes / (reference.size_bytes or 1):.0%})"
    verdict = tried.reason or f"validation {report.quality:.4f}"
    return f"candidate {tried.number}: {what}: {cost}: {verdict}"
