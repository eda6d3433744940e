import io
import json
import subprocess
import sys

import numpy as np
import pytest

from triptych.errors import MeasureError
from triptych.measure.environment import commit, cpu_model, environment, memory_bytes, versions
from triptych.measure.examples import groups, read_example, write_examples
from triptych.measure.worker import Session, serve


class Doubler:
    """Predicts twice the input, and notes what it was given."""

    names = ("a", "b")
    batch = 2

    def __init__(self):
        self.seen = []

    def run(self, inputs):
        self.seen.append({k: v.tolist() for k, v in inputs.items()})
        return 2 * sum(inputs.values())

    def answer(self, inputs):
        rows = len(next(iter(inputs.values())))
        return self.run(inputs), [{"shares": dict.fromkeys(inputs, 0.5), "flops": None}] * rows

    def parts(self, inputs, repeat):
        return {"a.encode": [0.5] * repeat}

    def describe(self):
        return {"params": 1, "flops": {}, "versions": {}}


@pytest.fixture
def examples(tmp_path):
    rows = [{"a": np.array([[1.0]])}, {"b": np.array([[2.0]])}, {"a": np.array([[3.0]]), "b": np.array([[4.0]])}, {}]
    assert write_examples(tmp_path / "examples", rows) == 4
    return tmp_path / "examples"


@pytest.fixture
def doubler():
    return Doubler()


@pytest.fixture
def session(doubler):
    session = Session(lambda threads: doubler)
    assert session.answer({"op": "load", "threads": 1})["can"] == ["without", "subsets", "parts", "describe"]
    return session


def test_predictions_come_in_row_order_and_null_where_nothing_is_left(session, examples):
    ask = {"op": "predict", "examples": str(examples), "rows": 4}
    assert session.answer({**ask, "without": None})["outputs"] == [[2.0], [4.0], [14.0], None]
    assert session.answer({**ask, "without": "a"})["outputs"] == [None, [4.0], [8.0], None]
    assert session.answer({**ask, "without": ["b"]})["outputs"] == [[2.0], None, [6.0], None]
    assert session.answer({**ask, "without": ["a", "b"]})["outputs"] == [None] * 4


def test_what_each_row_spent_is_told_for_the_modalities_that_it_has(session, examples):
    answer = session.answer({"op": "predict", "examples": str(examples), "rows": 4, "without": None})
    told = sorted(json.dumps(one["shares"], sort_keys=True) for one in answer["spent"])
    assert told == ['{"a": 0.5, "b": 0.5}', '{"a": 0.5}', '{"b": 0.5}']


def test_timing_cycles_over_the_rows_and_warms_up_first(session, doubler, examples):
    ask = {"op": "time", "examples": str(examples), "rows": 3, "start": 2, "repeat": 2, "warmup": 1}
    samples = session.answer(ask)["samples_s"]
    assert len(samples) == 2
    assert doubler.seen == [{"b": [[2.0]]}, {"a": [[3.0]], "b": [[4.0]]}, {"a": [[1.0]]}]


def test_stages_and_description_are_passed_on(session, examples):
    assert session.answer({"op": "parts", "examples": str(examples), "row": 2, "repeat": 3}) == {
        "parts_s": {"a.encode": [0.5] * 3}
    }
    assert session.answer({"op": "describe"})["params"] == 1


def test_a_request_out_of_turn_is_an_error(session):
    with pytest.raises(MeasureError, match="unknown request 'fly'"):
        session.answer({"op": "fly"})
    with pytest.raises(MeasureError, match="first request must be 'load'"):
        Session(lambda threads: Doubler()).answer({"op": "describe"})


def test_one_line_in_one_line_out(session):
    answers = io.BytesIO()
    serve(session, [b'{"op": "describe"}\n', b'{"op": "describe"}\n'], answers)
    assert [json.loads(line)["params"] for line in answers.getvalue().splitlines()] == [1, 1]


def test_examples_are_stacked_only_with_their_like(tmp_path):
    rows = [{"t": np.zeros((1, n))} for n in (2, 3, 2, 2)]
    write_examples(tmp_path, rows)
    found = {tuple(numbers): inputs["t"].shape for numbers, inputs in groups(tmp_path, 4, ("t",), 2)}
    assert found == {(0, 2): (2, 2), (1,): (1, 3), (3,): (1, 2)}


def test_writing_examples_replaces_the_old_ones(examples):
    write_examples(examples, [{"b": np.ones((1, 1))}])
    assert read_example(examples, 0, ("a", "b")).keys() == {"b"}


def test_the_worker_loads_nothing_heavy_before_its_candidate():
    code = "import sys, numpy; a = set(sys.modules); import triptych.measure.worker; print(*set(sys.modules) - a)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "onnxruntime", "subprocess", "tempfile", "zipfile", "asyncio", "PIL"} & set(loaded)


def test_the_environment_is_plain_and_names_the_machine(tmp_path):
    found = environment(threads=2)
    assert json.loads(json.dumps(found)) == found
    assert found["threads"] == 2
    info = tmp_path / "info"
    info.write_text("processor\t: 0\nmodel name\t: Fast 9000\nMemTotal:  16 kB\n")
    assert cpu_model(info) == "Fast 9000"
    assert memory_bytes(info) == 16 * 1024
    assert memory_bytes(tmp_path / "none") is None
    assert versions(["numpy", "no-such-package"]) == {"numpy": np.__version__}


def test_the_commit_is_of_the_checkout_that_holds_the_source(tmp_path):
    source = tmp_path / "code.py"
    source.write_text("")
    assert commit(source) is None

    def git(*arguments):
        identity = ("-c", "user.name=t", "-c", "user.email=t@localhost")
        subprocess.run(["git", *identity, "-C", str(tmp_path), *arguments], check=True, capture_output=True)

    git("init")
    assert commit(source) is None
    (tmp_path / "docs").mkdir()
    for document in ("docs/results.json", "README.md"):
        (tmp_path / document).write_text("old")
    git("add", ".")
    git("commit", "-m", "first")
    assert len(commit(source)) == 40
    for document in ("docs/results.json", "README.md"):
        (tmp_path / document).write_text("new")
    assert len(commit(source)) == 40
    source.write_text("x = 1")
    assert commit(source).endswith("+changes")
