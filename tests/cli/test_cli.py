"""Promises of the command line: one JSON line, clean errors, plans, overrides, and no torch before it is needed."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from triptych.cli import app
from triptych.cli_options import literals, name_candidates, split_pair
from triptych.errors import RecipeError

Run = Callable[..., Any]
COMMANDS = ("init", "fit", "compress", "measure", "export", "predict", "index", "report", "inspect")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_an_example_of_the_command(triptych: Run, command: str) -> None:
    ran = triptych(command, "--help")
    assert ran.code == 0
    assert f"triptych {command}" in ran.out.split("Examples:")[1]


def test_the_commands_are_those_promised() -> None:
    assert {name for name in app if not name.startswith("-")} == set(COMMANDS)


@pytest.mark.parametrize(
    ("tokens", "kind", "word"),
    [
        (("report", "nowhere"), "DataError", "run.json"),
        (("inspect", "nowhere"), "DataError", "nowhere"),
        (("fit", "x", "--budget", "p50=5ms"), "MissingArgumentError", "--out"),
        (("fit", "x", "--budget", "p50=5ms", "--out", "o", "--minutes", "many"), "CoercionError", "--minutes"),
        (("measure", "--data", "x"), "RecipeError", "at least one"),
        (("predict", "b"), "RecipeError", "--rows"),
        (("predict", "b", "--rows", "r.jsonl"), "RecipeError", "--out"),
        (("frobnicate",), "UnknownCommandError", "frobnicate"),
        (("report", "x", "--bogus", "1"), "UnknownOptionError", "--bogus"),
        (("report", "x", "--config", "nowhere.toml"), "RecipeError", "nowhere.toml"),
    ],
)
def test_a_wrong_call_is_one_line_for_people_and_one_for_programs(
    triptych: Run, tokens: tuple[str, ...], kind: str, word: str
) -> None:
    ran = triptych(*tokens)
    assert ran.code == 2
    assert ran.line["type"] == kind
    assert word in ran.line["error"]
    assert len(ran.out.splitlines()) == len(ran.err.splitlines()) == 1
    assert "Traceback" not in ran.err


def test_a_crash_is_one_line_too_and_debug_shows_where(triptych: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("triptych.report.RunRecord.load", lambda _: 1 / 0)
    ran = triptych("report", "x")
    assert ran.code == 1
    assert ran.line["type"] == "ZeroDivisionError"
    assert "--debug" in ran.err
    with pytest.raises(ZeroDivisionError):
        triptych("report", "x", "--debug")


def test_an_interruption_keeps_its_advice(triptych: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(_: object) -> None:
        raise KeyboardInterrupt("training stopped: go on with --resume")

    monkeypatch.setattr("triptych.report.RunRecord.load", stop)
    ran = triptych("report", "x")
    assert ran.code == 130
    assert "--resume" in ran.line["error"]


def test_fit_hands_over_what_was_asked_and_ends_with_the_chains_line(
    triptych: Run, chain: list[dict[str, Any]], tmp_path: Path
) -> None:
    ran = triptych("fit", "clips", "--budget", "p50=5ms,size=2MB", "--out", tmp_path, "--train.epochs", 3, "--resume")
    assert ran.code == 0
    assert ran.line == {"dataset": "clips", "quality": None, "bundle": str(tmp_path / "bundle")}
    assert "training the reference" in ran.err
    (call,) = chain
    assert (call["seed"], call["threads"], call["minutes"]) == (0, 1, 20.0)
    assert (call["resume"], call["train"]) == (True, {"epochs": 3})
    assert (call["budget"].p50_s, call["budget"].size_bytes) == (0.005, 2_000_000)


def test_json_prints_nothing_else(triptych: Run, chain: list[dict[str, Any]], tmp_path: Path) -> None:
    ran = triptych("fit", "clips", "--budget", "p50=5ms", "--out", tmp_path, "--json")
    assert not ran.err
    assert len(ran.out.splitlines()) == 1


def test_the_command_line_overrides_the_configuration(
    triptych: Run, chain: list[dict[str, Any]], tmp_path: Path
) -> None:
    config = tmp_path / "fit.toml"
    config.write_text(
        f'data = "clips"\nbudget = "p50=5ms"\nout = "{tmp_path}"\nseed = 7\n[train]\nepochs = 2\nprecision = "auto"\n'
    )
    assert triptych("fit", "--config", config, "--seed", 8, "--train.epochs", 3).code == 0
    assert chain[0]["seed"] == 8
    assert chain[0]["data"] == "clips"
    assert chain[0]["train"]["epochs"] == 3


def test_an_unknown_key_of_the_configuration_is_an_error(triptych: Run, tmp_path: Path) -> None:
    config = tmp_path / "fit.toml"
    config.write_text('data = "clips"\nbudget = "p50=5ms"\nout = "x"\nsede = 7\n')
    ran = triptych("fit", "--config", config)
    assert ran.code == 2
    assert "sede" in ran.line["error"]


def test_a_damaged_configuration_is_an_error(triptych: Run, tmp_path: Path) -> None:
    config = tmp_path / "fit.toml"
    config.write_text("data = ")
    assert triptych("fit", "--config", config).line["type"] == "RecipeError"


def test_a_dry_run_writes_the_resolved_plan_and_does_nothing(
    triptych: Run, chain: list[dict[str, Any]], tmp_path: Path
) -> None:
    ran = triptych("fit", "clips", "--budget", "p50=5ms", "--out", tmp_path, "--dry-run")
    plan = json.loads((tmp_path / "plan.json").read_text())
    assert ran.line == {"dry_run": True, **plan, "plan": str(tmp_path / "plan.json")}
    assert plan["options"]["budget"]["p50_s"] == 0.005
    assert plan["options"]["seed"] == 0
    assert not chain


def test_candidates_are_named_after_their_folders() -> None:
    assert name_candidates(["a/bundle", "b/bundle", "x=c/bundle"]) == {
        "bundle": Path("a/bundle"),
        "b/bundle": Path("b/bundle"),
        "x": Path("c/bundle"),
    }
    with pytest.raises(RecipeError, match="two candidates"):
        name_candidates(["x=a", "x=b"])


def test_overrides_are_read_as_values() -> None:
    given = {"epochs": "3", "lr": "1e-3", "class_weights": "true", "patience": "None", "precision": "auto"}
    assert literals(given) == {"epochs": 3, "lr": 0.001, "class_weights": True, "patience": None, "precision": "auto"}


def test_report_reads_the_run_and_writes_the_page(triptych: Run, tmp_path: Path) -> None:
    run = {"dataset": "clips", "schema": {"task": "classification", "metric": "accuracy"}}
    (tmp_path / "run.json").write_text(json.dumps(run))
    ran = triptych("report", tmp_path)
    assert ran.line == {"report": str(tmp_path / "report.html")}
    assert "clips" in (tmp_path / "report.html").read_text()


def test_predict_and_inspect_load_no_torch(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{}")
    for command in (("predict", str(tmp_path), "--image", "x.png"), ("inspect", str(tmp_path))):
        code = f"import sys; from triptych.cli import main; print(main({list(command)}), 'torch' in sys.modules)"
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        error, last = run.stdout.splitlines()
        assert json.loads(error)["type"] == "BundleError"
        assert last == "2 False"


def test_the_pair_of_a_retrieval_goes_into_the_plan(triptych: Run, tmp_path: Path) -> None:
    ran = triptych("fit", "x", "--task", "retrieval", "--pair", "photo, title", "--out", tmp_path, "--dry-run")
    assert ran.code == 0, ran.err
    assert (ran.line["options"]["task"], ran.line["options"]["pair"]) == ("retrieval", "photo, title")
    assert split_pair("photo, title") == ("photo", "title")
    assert split_pair(None) is None


def test_init_writes_a_retrieval_that_is_read_back(triptych: Run, tmp_path: Path) -> None:
    table = tmp_path / "notes.csv"
    table.write_text("\n".join(["note,height", *(f"a note number {i} of the day,{i / 7}" for i in range(30))]) + "\n")
    ran = triptych("init", table, "--task", "retrieval", "--pair", "note,table")
    assert ran.code == 0, ran.err
    seen = triptych("inspect", table)
    assert seen.line["schema"]["pair"] == ["note", "table"]
    assert "retrieval between note and table" in seen.err
