import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from triptych.errors import MeasureError
from triptych.measure import Peer, Report, measure

OTHER = """
def slower(request):
    return {"samples_s": [0.003] * request["repeat"]}

def always_yes(request):
    return {"outputs": [[0.0, 1.0]] * request["rows"]}

serve(load=lambda r: {}, time=slower, predict=always_yes)
"""


@pytest.fixture
def reports(data, peer, tmp_path):
    candidates = {"good": peer(), "always yes": peer(OTHER, size_bytes=None)}
    return measure(candidates, data, repeat=6, rounds=3, folder=tmp_path / "out")


def test_quality_by_hand(reports):
    first, second = reports["good"], reports["always yes"]
    assert first.quality == 1.0  # rows 0 to 4: no, yes, yes (right adds 5), yes, no
    assert second.quality == 3 / 5
    assert (first.rows, first.ignored) == (5, 1)
    assert (first.drop, first.drop_interval, first.drop_p, first.loyalty) == (0.0, (0.0, 0.0), 1.0, 1.0)
    assert second.drop == pytest.approx(2 / 5)
    assert second.drop_p == 0.5  # two discordant rows against none: 2 / 2²
    assert second.loyalty == 4 / 6  # row 5 counts: both say yes
    assert second.drop_interval[0] <= second.drop <= second.drop_interval[1]


def test_latency_by_hand(reports):
    first, second = reports["good"], reports["always yes"]
    assert first.samples_s == (0.002,) * 6
    assert (first.p50_s, first.p95_s, first.p50_ratio, first.p50_ratio_interval) == (0.002, 0.002, 1.0, (1.0, 1.0))
    assert second.p50_ratio == pytest.approx(1.5)
    assert second.rounds == 3


def test_memory_size_and_what_the_worker_says(reports):
    first, second = reports["good"], reports["always yes"]
    assert first.peak_bytes_total > first.floor_bytes > 10_000_000
    assert first.peak_bytes == max(0, first.peak_bytes_total - first.floor_bytes)
    assert (first.size_bytes, first.flops, first.params) == (100, 15, 7)
    assert (second.size_bytes, second.flops, second.params) == (None, None, None)
    assert first.energy_j is not None or first.energy_source.startswith("unavailable: ")


def test_parts_hold_the_cost_and_the_worth_of_each_modality(reports):
    parts = reports["good"].parts
    assert parts["left.encode"].p50_s == 0.002
    assert parts["decide"].flops == 5
    assert (parts["left"].p50_s, parts["left"].flops) == (0.002, 10)
    # without right: rows 0 to 4 are no, yes, no (wrong), yes, no
    assert parts["right"].worth == pytest.approx(1 / 5)
    assert parts["right"].quality == pytest.approx(4 / 5)
    # without left: row 4 has nothing left; rows 0 to 3 are no (tie), no (tie), yes, yes against no, yes, yes, yes
    assert parts["left"].rows == 4
    assert parts["left"].worth == pytest.approx(1 / 4)
    assert parts["right"].p50_s is None
    assert reports["always yes"].parts == {}


def test_the_report_says_where_it_comes_from_and_survives_json(reports):
    found = reports["good"]
    assert found.environment["dataset"] == {"name": "tiny", "fingerprint": "f00d", "split": "test", "rows": 6}
    assert found.environment["protocol"]["order"] == ["good", "always yes"]
    assert found.environment["worker"] == {"peer": "1"}
    assert found.environment["packages"]["numpy"] == np.__version__
    assert Report.from_dict(json.loads(json.dumps(found.to_dict()))) == found


def test_raw_outputs_are_kept_on_request(reports, tmp_path):
    assert reports["always yes"].predictions == "1-always-yes.npz"
    with np.load(tmp_path / "out" / reports["good"].predictions) as kept:
        assert kept["outputs"].shape == (6, 2)
        assert kept["ids"][3] == "row-3"
        assert kept["targets"].tolist() == [0, 1, 1, 1, 0, -1]


def test_candidates_take_turns_on_the_same_examples(data, peer, tmp_path):
    log = tmp_path / "log"
    script = """
    def noted(request):
        with open({log!r}, "a") as file:
            print({name!r}, request["start"], request["repeat"], request["warmup"], file=file)
        return times(request)
    serve(**{{**good, "time": noted}})
    """
    candidates = {name: peer(script.format(log=str(log), name=name)) for name in "AB"}
    measure(candidates, data, repeat=7, rounds=2, warmup=3, parts=False)
    # with energy counters each is timed once more at the end
    assert log.read_text().splitlines()[:4] == ["A 0 4 3", "B 0 4 3", "A 4 4 1", "B 4 4 1"]


def test_without_parts_no_modality_is_left_out(data, peer):
    found = measure({"only": peer()}, data, repeat=1, rounds=1, parts=False)["only"]
    assert found.parts.keys() == {"left.encode", "decide", "left"}  # from the operations that it was told
    assert found.parts["left"].worth is None
    assert found.parts["left"].p50_s is None


def test_a_split_longer_than_a_shard_keeps_its_order(data, peer):
    split = data.splits["test"]
    long = type(split)(split.examples * 50, np.tile(split.targets, 50))
    data.splits["long"] = long
    assert measure({"a": peer()}, data, split="long", repeat=1, rounds=1, parts=False)["a"].quality == 1.0


@pytest.mark.parametrize(
    ("script", "text"),
    [
        ("raise SystemExit('no such engine')", "(?s)'bad' (ended|went away).*no such engine"),
        ("print('hello', flush=True); time.sleep(60)", "not JSON: b'hello'"),
        ("print('[1]', flush=True); time.sleep(60)", "expected a JSON object"),
        ("serve(**{**good, 'time': lambda r: {'error': 'out of cheese'}})", "could not time: out of cheese"),
        ("serve(**{**good, 'time': lambda r: {'samples_s': [1.0]}})", "should have given 2 times"),
        ("serve(**{**good, 'time': lambda r: {'samples_s': [-1.0, 1.0]}})", "should have given 2 times"),
        ("serve(**{**good, 'time': lambda r: {}})", "should have given 2 times"),
        ("serve(**{**good, 'predict': lambda r: {'outputs': []}})", "a list of 6 outputs"),
        ("serve(**{**good, 'predict': lambda r: {'outputs': [[1.0]] * 6}})", "expected 2 finite numbers"),
        ("serve(**{**good, 'predict': lambda r: {'outputs': [[0, 1]] * 3 + [[0, float('nan')]] * 3}})", "row 3 .row-3"),
        ("serve(**{**good, 'predict': lambda r: {'outputs': [None] * 6}})", r"row 0 \(row-0\)"),
        (
            "serve(**{**good, 'predict': lambda r: os.kill(os.getpid(), 9)})",
            "ended during 'predict' with exit status -9",
        ),
    ],
)
def test_a_bad_worker_is_an_error_that_says_what_it_did(data, peer, script, text):
    with pytest.raises(MeasureError, match=text):
        measure({"good": peer(), "bad": peer(script)}, data, repeat=2, rounds=1)


def test_a_hanging_worker_is_given_up(data, peer):
    with pytest.raises(MeasureError, match=r"did not answer 'load' within 0.5 s"):
        measure({"bad": peer("time.sleep(600)")}, data, timeout_s=0.5)


def test_a_command_that_does_not_exist_is_an_error(data, tmp_path):
    with pytest.raises(MeasureError, match="cannot start the worker of 'bad'"):
        measure({"bad": Peer((str(tmp_path / "nothing"),))}, data)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [({"split": "exam"}, "no rows in split 'exam'"), ({"repeat": 0}, "at least 1, got {'repeat': 0}")],
)
def test_wrong_arguments_are_errors(data, peer, arguments, text):
    with pytest.raises(MeasureError, match=text):
        measure({"a": peer()}, data, **arguments)


def test_nothing_to_measure_is_an_error(data, tmp_path):
    with pytest.raises(MeasureError, match="at least one candidate"):
        measure({}, data)
    with pytest.raises(MeasureError, match="neither a bundle"):
        measure({"empty": tmp_path}, data)


def test_no_worker_outlives_a_measurement_that_failed(data, peer, tmp_path):
    note = tmp_path / "pid"
    good = peer(f"open({str(note)!r}, 'w').write(str(os.getpid())); serve(**good)")
    with pytest.raises(MeasureError):
        measure({"good": good, "bad": peer("raise SystemExit(3)")}, data)
    with pytest.raises(ProcessLookupError):
        os.kill(int(note.read_text()), 0)


def test_a_stopped_worker_ends_with_its_killed_parent(peer, tmp_path):
    note = tmp_path / "pid"
    script = f"""
import os, sys
from triptych.measure.process import Worker
worker = Worker("w", {peer().command!r})
worker.ask("load")
open({str(note)!r}, "w").write(str(worker.pid))
os.kill(os.getpid(), 9)
"""
    done = subprocess.run([sys.executable, "-c", script], start_new_session=True, check=False)
    assert done.returncode == -signal.SIGKILL
    status = Path(f"/proc/{note.read_text()}/status")
    for _ in range(100):
        if not status.exists() or "State:\tZ" in status.read_text():
            return
        time.sleep(0.05)
    os.kill(int(note.read_text()), signal.SIGKILL)
    pytest.fail("the worker stayed behind")
