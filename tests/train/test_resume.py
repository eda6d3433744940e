"""A run that is stopped in any way goes on to the weights of the run that was not."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

from triptych.errors import TrainingError
from triptych.train import fit, fit_with_history
from triptych.train.augment import Augment
from triptych.train.checkpoint import FILE
from triptych.train.progress import TrainProgress

from .small import config, network, same


class StoppedError(Exception):
    pass


def stop_at(step: int):
    def watch(event: TrainProgress) -> None:
        if event.step == step:
            raise StoppedError

    return watch


@pytest.mark.parametrize("step", [1, 3, 4])
def test_a_resumed_run_ends_as_the_uninterrupted_one(tiny_data, tmp_path: Path, step: int) -> None:
    options = config(epochs=3, average=0.9, modality_dropout=0.3, token_dropout=0.5, checkpoint_every_s=0.0)
    given = {"augment": Augment.default(tiny_data.schema)}
    whole = fit_with_history(network(tiny_data), tiny_data, options, **given)
    with pytest.raises(StoppedError):
        fit(network(tiny_data), tiny_data, options, folder=tmp_path, progress=stop_at(step), **given)
    parts = fit_with_history(network(tiny_data, seed=9), tiny_data, options, folder=tmp_path, resume=True, **given)
    assert same(whole.model, parts.model)
    strip = [{k: v for k, v in record.items() if k != "elapsed_s"} for record in (*whole.history, *parts.history)]
    assert strip[: len(strip) // 2] == strip[len(strip) // 2 :]
    assert len(json.loads((tmp_path / "history.json").read_text())) == 3


def start(*arguments: object) -> subprocess.Popen[str]:
    worker = Path(__file__).with_name("worker.py")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(worker), *map(str, arguments)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, cwd=worker.parent
    )


def until(process: subprocess.Popen[str], step: int) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if int(line) >= step:
            return
    pytest.fail(f"the worker ended early: {process.communicate()[1]}")


def finish(process: subprocess.Popen[str]) -> None:
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors


@pytest.mark.slow
def test_killed_twice_at_random_moments_the_weights_are_the_same(tiny_dataset: Path, tmp_path: Path) -> None:
    finish(start(tiny_dataset, tmp_path / "whole"))
    for _ in range(2):
        process = start(tiny_dataset, tmp_path / "killed")
        until(process, random.randint(1, 4))
        time.sleep(random.uniform(0, 0.08))
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
        assert process.returncode == -signal.SIGKILL
        assert (tmp_path / "killed" / FILE).exists()
    finish(start(tiny_dataset, tmp_path / "killed"))
    whole, killed = (load_file(tmp_path / name / "result.safetensors") for name in ("whole", "killed"))
    assert whole.keys() == killed.keys()
    assert all(tensor.equal(killed[name]) for name, tensor in whole.items())


@pytest.mark.slow
def test_two_processes_agree_on_the_weights(tiny_dataset: Path, tmp_path: Path) -> None:
    worker = Path(__file__).with_name("worker.py")
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command = [sys.executable, *launcher, str(worker), str(tiny_dataset), str(tmp_path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    run = subprocess.run(
        command, check=False, env=environment, capture_output=True, text=True, timeout=240, cwd=worker.parent
    )
    assert run.returncode == 0, run.stderr
    first, second = (load_file(tmp_path / f"result{rank}.safetensors") for rank in range(2))
    assert all(tensor.equal(second[name]) for name, tensor in first.items())


def test_ctrl_c_saves_and_tells_how_to_go_on(tiny_data, tmp_path: Path) -> None:
    def press(event: TrainProgress) -> None:
        if event.step == 2:
            os.kill(os.getpid(), signal.SIGINT)

    options, before = config(epochs=2), signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt, match=r"after step 2 of 6.*resume=True"):
        fit(network(tiny_data), tiny_data, options, folder=tmp_path, progress=press)
    assert signal.getsignal(signal.SIGINT) is before
    seen: list[int] = []
    model = fit(
        network(tiny_data), tiny_data, options, folder=tmp_path, resume=True, progress=lambda e: seen.append(e.step)
    )
    assert seen == [3, 4, 5, 6]
    assert same(model, fit(network(tiny_data), tiny_data, options))


def test_ctrl_c_without_a_folder_says_that_nothing_was_saved(tiny_data) -> None:
    with pytest.raises(KeyboardInterrupt, match="nothing was saved"):
        fit(network(tiny_data), tiny_data, config(), progress=lambda _: os.kill(os.getpid(), signal.SIGINT))


def test_an_unfinished_run_is_not_overwritten_by_accident(tiny_data, tmp_path: Path) -> None:
    options = config(checkpoint_every_s=0.0)
    with pytest.raises(StoppedError):
        fit(network(tiny_data), tiny_data, options, folder=tmp_path, progress=stop_at(1))
    with pytest.raises(TrainingError, match="unfinished run; pass resume=True"):
        fit(network(tiny_data), tiny_data, options, folder=tmp_path)


def test_a_finished_run_is_resumed_at_once_and_may_be_replaced(tiny_data, tmp_path: Path) -> None:
    options, seen = config(), []
    first = fit(network(tiny_data), tiny_data, options, folder=tmp_path)
    again = fit(network(tiny_data), tiny_data, options, folder=tmp_path, resume=True, progress=seen.append)
    assert same(first, again)
    assert not seen
    fit(network(tiny_data), tiny_data, options, folder=tmp_path, progress=seen.append)
    assert len(seen) == 6


@pytest.mark.parametrize(("change", "named"), [({"lr": 1e-4}, "lr: 0.003 then, 0.0001 now"), ({"seed": 1}, "seed")])
def test_a_checkpoint_of_other_options_is_refused(tiny_data, tmp_path: Path, change: dict, named: str) -> None:
    fit(network(tiny_data), tiny_data, config(epochs=1), folder=tmp_path)
    with pytest.raises(TrainingError, match=f"another run .*{named}"):
        fit(network(tiny_data), tiny_data, config(epochs=1, **change), folder=tmp_path, resume=True)


def test_a_checkpoint_of_another_network_is_refused(tiny_data, tmp_path: Path) -> None:
    fit(network(tiny_data), tiny_data, config(epochs=1), folder=tmp_path)
    with pytest.raises(TrainingError, match="another network"):
        fit(network(tiny_data, dim=24), tiny_data, config(epochs=1), folder=tmp_path, resume=True)


def test_a_damaged_checkpoint_is_refused(tiny_data, tmp_path: Path) -> None:
    fit(network(tiny_data), tiny_data, config(epochs=1), folder=tmp_path)
    content = bytearray((tmp_path / FILE).read_bytes())
    content[-100] ^= 1
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(TrainingError, match="damaged"):
        fit(network(tiny_data), tiny_data, config(epochs=1), folder=tmp_path, resume=True)


def test_resuming_needs_a_folder(tiny_data) -> None:
    with pytest.raises(TrainingError, match="folder"):
        fit(network(tiny_data), tiny_data, resume=True)
