"""The main job: fit within a budget on every set, and measure the result against honest controls.

    python bench/main_job.py                                  # easy-vqa and every set of ../shared/data, hours
    python bench/main_job.py icu mosi --stages fit,ladder     # some sets, some stages
    python bench/main_job.py --stages record                  # write docs/results again from what is there

Stages, each skipped where its result exists:

    fit      `triptych fit` in a process of its own: the reference, the search, the student, the bundle
    ladder   smaller dense networks, trained as the reference is
    singles  the reference with one modality at a time
    peers    the reference in ONNX Runtime float32, and in OpenVINO int8 by NNCF (in an environment of its own)
    measure  everything against everything on the test split, interleaved, with one thread and with two
    record   docs/results/SET.json, and from those alone docs/results.md

Several sets may train beside each other (`--jobs`, or several of these commands); `measure` waits until it is alone.
Data lies in ../shared/data beside the repository, or where TRIPTYCH_DATA says.  The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from locks import alone, beside_others

import triptych
from triptych.measure.environment import commit

ROOT = Path(__file__).resolve().parents[1]
BENCH = ROOT / "bench"
SETS = ("easy-vqa", "avdigits", "fashion", "sisfall", "ravdess", "icu", "mosi")
BUDGET = "p50=10%,size=5%,memory=20%,drop=0.5"
BUDGETS = {  # tightened by hand: their int8 peers are quick
    "easy-vqa": "p50=7%,size=5%,memory=20%,drop=0.5",
    "icu": "p50=6.5%,size=5%,memory=20%,drop=0.5",
}
LADDER = {"dense-half": 2, "dense-quarter": 4}
TRAINING = ("fit", "ladder", "singles", "peers")
STAGES = (*TRAINING, "measure", "record")


@dataclass(frozen=True)
class Job:
    """One set: where its data are, where its results go, and how long to train."""

    name: str
    out: Path
    minutes: float
    seed: int
    threads_train: int
    repeat: int
    cap_minutes: float | None = None

    @property
    def data(self) -> str:
        if self.name == "easy-vqa":
            return self.name
        return str(Path(os.environ.get("TRIPTYCH_DATA", ROOT.parent / "shared" / "data")) / self.name)

    @property
    def budget(self) -> str:
        return BUDGETS.get(self.name, BUDGET)

    @property
    def folder(self) -> Path:
        return self.out / self.name

    @property
    def max_seconds(self) -> float:
        """The longest that a control may train: as long as the reference of `triptych fit`, unless said otherwise."""
        if self.cap_minutes is not None:
            return 60 * self.cap_minutes
        from triptych.search.chain import SHARES

        return 60 * self.minutes * SHARES["reference"]

    def say(self, text: str) -> None:
        print(f"{time.strftime('%H:%M:%S')} {self.name}: {text}", file=sys.stderr, flush=True)


def fit(job: Job) -> None:
    done, out = job.folder / "fit.json", job.folder / "fit"
    if done.exists():
        return
    shutil.rmtree(out, ignore_errors=True)
    options = {"budget": job.budget, "out": str(out), "seed": job.seed, "threads": 1, "minutes": job.minutes}
    arguments = [text for key, value in options.items() for text in (f"--{key}", str(value))]
    command = ["-m", "triptych.cli", "fit", job.data, *arguments]
    fitted_by = commit(Path(triptych.__file__))
    ran = run(job, command, job.folder / "fit.log", retry=False)
    shutil.copy(out / "training" / "history.json", job.folder / "reference-history.json")
    shutil.rmtree(out / "search", ignore_errors=True)
    shutil.rmtree(out / "training", ignore_errors=True)
    shown = f"triptych fit {job.name} --budget {job.budget} --seed {job.seed} --minutes {job.minutes:g}"
    write_json(done, {**ran, "command": shown, "minutes": job.minutes, "seed": job.seed, "commit": fitted_by})


def ladder(job: Job) -> None:
    for name, divide in LADDER.items():
        train(job, job.folder / name, "--divide", str(divide))


def singles(job: Job) -> None:
    for name in modalities(job):
        train(job, job.folder / "singles" / name, "--only", name)


def train(job: Job, out: Path, *options: str) -> None:
    if (out / "done.json").exists():
        return
    limits = ("--max-seconds", f"{job.max_seconds:g}", "--seed", str(job.seed))
    run(job, [str(BENCH / "dense.py"), job.data, str(out), *options, *limits], out.with_suffix(".log"))


def peers(job: Job) -> None:
    reference, out = job.folder / "fit" / "reference", job.folder / "peers"
    float32 = out / "onnxruntime-float32"
    if not (float32 / "manifest.json").exists():
        arguments = ["export", str(reference), "--data", job.data, "--out", str(float32)]
        run(job, ["-m", "triptych.cli", *arguments], out / "onnxruntime-float32.log")
    int8 = out / "openvino-int8"
    if not (int8 / "done.json").exists():
        run(job, [str(BENCH / "openvino_int8.py"), job.data, str(reference), str(int8)], out / "openvino-int8.log")


def measured(job: Job) -> None:
    done = job.folder / "measure.json"
    if done.exists():
        return
    script = [str(BENCH / "against.py"), job.data, str(job.folder), "--repeat", str(job.repeat)]
    run(job, script, job.folder / "measure.log")


def record(job: Job) -> None:
    from records import write_record
    from results_page import write_page

    if (job.folder / "measure.json").exists():
        write_record(job.folder, ROOT / "docs" / "results" / f"{job.name}.json")
        write_page(ROOT / "docs")


WORK: dict[str, Callable[[Job], None]] = {
    "fit": fit,
    "ladder": ladder,
    "singles": singles,
    "peers": peers,
    "measure": measured,
    "record": record,
}


def run(job: Job, arguments: list[str], log: Path, *, retry: bool = True) -> dict[str, Any]:
    """Run Python once (and once more if it fails).  Returns its output's last line, its seconds and peak memory."""
    log.parent.mkdir(parents=True, exist_ok=True)
    threads = str(job.threads_train)
    environment = {**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    job.say(f"{' '.join(arguments[:4])} …")
    start = time.monotonic()
    with log.open("wb") as said:
        child = subprocess.Popen([sys.executable, *arguments], stdout=said, stderr=subprocess.STDOUT, env=environment)
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    wall_s = time.monotonic() - start
    lines = log.read_text(errors="replace").strip().splitlines() or [""]
    if child.returncode:
        job.say(f"failed after {wall_s:.0f} s: {lines[-1][:500]}")
        if retry:
            return run(job, arguments, log, retry=False)
        raise RuntimeError(f"{' '.join(arguments[:4])} failed; see {log}")
    job.say(f"took {wall_s:.0f} s")
    return {"line": json.loads(lines[-1]), "wall_s": round(wall_s, 1), "peak_rss_bytes": usage.ru_maxrss * 1024}


def modalities(job: Job) -> list[str]:
    described = json.loads((job.folder / "fit" / "reference" / "model.json").read_text())
    return [modality["name"] for modality in described["schema"]["modalities"]]


def write_json(path: Path, record: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(record, indent=1) + "\n")
    partial.replace(path)


def work(job: Job, stages: list[str]) -> str:
    """Run the stages of one set.  Returns what went wrong, or nothing."""
    for stage in stages:
        try:
            with turn(job, stage):
                WORK[stage](job)
        except Exception as error:  # noqa: BLE001 (one set's failure must not end the night of the others)
            job.say(f"{stage} failed: {error}")
            return f"{stage}: {error}"
    return ""


def turn(job: Job, stage: str) -> AbstractContextManager[None]:
    if stage == "record":
        return nullcontext()
    return (alone if stage == "measure" else beside_others)(job.out)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="*", metavar="SET", help=f"of {', '.join(SETS)}; all where left out")
    parser.add_argument("--stages", default=",".join(STAGES))
    parser.add_argument("--out", type=Path, default=Path("out/main"))
    parser.add_argument("--minutes", type=float, default=18.0, help="wall time that `triptych fit` may take per set")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads-train", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=1, help="sets whose training stages run beside each other")
    parser.add_argument("--cap-minutes", type=float, help="longest training of a control; left out, the reference's")
    parser.add_argument("--repeat", type=int, default=200, help="timed predictions per candidate")
    args = parser.parse_args()
    stages, names = args.stages.split(","), args.sets or list(SETS)
    if unknown := {*stages} - {*STAGES} | {*names} - {*SETS}:
        parser.error(f"unknown {sorted(unknown)}; stages are {', '.join(STAGES)}; sets are {', '.join(SETS)}")
    shared = (args.out, args.minutes, args.seed, args.threads_train, args.repeat, args.cap_minutes)
    jobs = [Job(name, *shared) for name in names]
    start = time.monotonic()
    failed: dict[str, str] = {}
    asked = [stage for stage in STAGES if stage in stages]
    if args.jobs > 1:
        with ThreadPoolExecutor(args.jobs) as pool:
            failed = dict(
                zip(names, pool.map(lambda job: work(job, [s for s in asked if s in TRAINING]), jobs), strict=True)
            )
        asked = [stage for stage in asked if stage not in TRAINING]
    failed |= {job.name: work(job, asked) for job in jobs if not failed.get(job.name)}
    failed = {name: what for name, what in failed.items() if what}
    print(json.dumps({"sets": names, "stages": stages, "failed": failed, "wall_s": round(time.monotonic() - start, 1)}))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
