"""The results page and the README say what the measurements say, and targets are judged right."""

import sys
import threading
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "bench"))

import locks  # noqa: E402
import main_job  # noqa: E402
import openvino_int8  # noqa: E402
import records  # noqa: E402
import results_page  # noqa: E402

RESULTS = ROOT / "docs" / "results"
MEASURED = results_page.load(RESULTS)
measured = pytest.mark.skipif(not MEASURED, reason="nothing has been measured yet: docs/results holds no set")


@measured
def test_the_page_equals_the_measurements() -> None:
    page = results_page.page(MEASURED, results_page.notes(RESULTS), results_page.side_tables(RESULTS))
    assert (ROOT / "docs" / "results.md").read_text() == page, "run: python bench/results_page.py"


@measured
def test_the_readme_equals_the_measurements() -> None:
    readme = (ROOT / "README.md").read_text()
    assert results_page.OPEN in readme
    expected = results_page.with_block(readme, results_page.readme_block(MEASURED))
    assert readme == expected, "run: python bench/results_page.py"


@pytest.mark.parametrize("record", MEASURED, ids=lambda record: record["set"])
def test_recorded_targets_follow_from_the_recorded_figures(record: dict[str, Any]) -> None:
    assert records.targets(record) == record["targets"]
    assert (RESULTS / f"{record['set']}.png").stat().st_size <= 200_000


def report(**figures: Any) -> dict[str, Any]:
    usual = {"quality": 0.9, "p50_ratio": 1.0, "drop": 0.0, "drop_interval": [0.0, 0.0]}
    return {**usual, "peak_bytes": 200, "size_bytes": 1000, **figures}


def record(**ours: Any) -> dict[str, Any]:
    lean = report(quality=0.898, p50_ratio=0.08, drop=0.002, drop_interval=[-0.01, 0.015], peak_bytes=30, size_bytes=40)
    reports = {
        "reference": report(),
        "dense-half": report(quality=0.95, p50_ratio=0.3),
        "dense-quarter": report(quality=0.85, p50_ratio=0.05),
        "triptych": {**lean, **ours},
    }
    return {
        "set": "avdigits",
        "metric": "accuracy",
        "reports": {"1": reports},
        "direct": {"1": {"openvino-int8": {"ratio": 0.25}}},
        "fit": {"wall_s": 1100.0, "peak_rss_bytes": 2_000_000_000},
        "singles": {"image": {"test": {"quality": 0.7}}, "audio": {"test": {"quality": 0.8}}},
    }


def unmet(found: dict[str, dict[str, Any]]) -> set[str]:
    return {name for name, target in found.items() if not target["met"]}


def test_targets_by_hand() -> None:
    found = records.targets(record())
    assert unmet(found) == set()
    assert found["memory"]["value"] == pytest.approx(0.15)
    assert found["size"]["value"] == pytest.approx(0.04)
    assert found["int8"]["value"] == pytest.approx(4.0)
    assert found["fused"]["value"] == pytest.approx(0.1)
    assert found["fused"]["delivered"] == pytest.approx(0.098)
    assert found["fused"]["best"] == "audio"


@pytest.mark.parametrize(
    ("ours", "missed"),
    [
        ({"p50_ratio": 0.11}, {"latency"}),
        ({"peak_bytes": 41}, {"memory"}),
        ({"size_bytes": 51}, {"size"}),
        ({"drop": 0.006}, {"drop"}),
        ({"drop_interval": [0.0, 0.021]}, {"drop_upper"}),
        ({"quality": 0.85}, {"front"}),
        ({"p50_ratio": 0.3}, {"front", "latency"}),
    ],
)
def test_each_target_can_be_missed(ours: dict[str, Any], missed: set[str]) -> None:
    assert unmet(records.targets(record(**ours))) == missed


def test_fusion_is_asked_to_gain_where_it_is_known_to() -> None:
    poor = {**record(), "singles": {"image": {"test": {"quality": 0.9}}}}
    assert unmet(records.targets(poor)) == {"fused"}
    assert unmet(records.targets({**poor, "set": "mosi"})) == set()


def test_how_a_reference_trained_by_hand() -> None:
    history = [{"epoch": e, "elapsed_s": 10.0 * e, "quality": q} for e, q in enumerate((0.5, 0.8, 0.7, 0.6), 1)]
    options = {"epochs": 40, "patience": 2}
    found = records.training(history, options, "accuracy")
    assert found == {"epochs": 4, "seconds": 40.0, "quarters": [0.5, 0.8, 0.8, 0.8], "ended": "no gain in validation"}
    assert records.training(history, {**options, "epochs": 4}, "accuracy")["ended"] == "its number of epochs"
    assert records.training(history, {**options, "patience": 3}, "accuracy")["ended"] == "its cap of wall time"
    errors = records.training(history, options, "mae")
    assert errors["quarters"] == [0.5, 0.5, 0.5, 0.5]
    assert records.training(history[1:], options, "accuracy")["quarters"][0] is None


def test_a_set_names_the_commit_of_its_fit_where_it_was_kept() -> None:
    fit = {"command": "fit", "wall_s": 60.0, "peak_rss_bytes": 2e9}
    assert results_page.fit_line(fit) == "`fit` took 60 s and 2.00 GB"
    assert results_page.fit_line({**fit, "commit": None}) == results_page.fit_line(fit)
    assert results_page.fit_line({**fit, "commit": "0123456789abcdef"}).endswith("2.00 GB, at commit 0123456789ab")
    assert results_page.fit_line({**fit, "commit": "0123456789abcdef+changes"}).endswith("ab with changes")


def test_a_fit_keeps_the_commit_that_it_ran_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The code may change between a fit and its measurement, and `record` gathers the file as it is."""
    job = main_job.Job("icu", tmp_path, 1.0, 0, 1, 1)

    def trained(*_given: Any, **_options: Any) -> dict[str, Any]:
        (job.folder / "fit" / "training").mkdir(parents=True)
        (job.folder / "fit" / "training" / "history.json").write_text("[]")
        monkeypatch.setattr(main_job, "commit", lambda _source: "later")
        return {"line": {}, "wall_s": 1.0, "peak_rss_bytes": 1}

    monkeypatch.setattr(main_job, "commit", lambda _source: "earlier")
    monkeypatch.setattr(main_job, "run", trained)
    main_job.fit(job)
    assert records.read(job.folder / "fit.json")["commit"] == "earlier"


def test_a_lower_error_is_better() -> None:
    assert records.gain(0.2, 0.3, "mae") == pytest.approx(0.1)
    assert records.dominates({"p50_ratio": 0.1, "quality": 0.2}, {"p50_ratio": 0.1, "quality": 0.3}, "mae")


def test_the_peer_is_the_fastest_of_those_that_keep_the_quality() -> None:
    ways = {
        "float32": {"validation": 0.9, "p50_s": 9.0},
        "a": {"validation": 0.896, "p50_s": 2.0},
        "b": {"validation": 0.91, "p50_s": 3.0},
        "c": {"validation": 0.8, "p50_s": 1.0},
    }
    assert openvino_int8.choose(ways, ("a", "b", "c"), "accuracy") == "a"
    assert openvino_int8.choose(ways, ("c",), "accuracy") == "c"


def test_the_block_in_the_readme_is_replaced_and_marked() -> None:
    first = results_page.with_block(f"a\n{results_page.OPEN}\nb\n", "table\n")
    assert first == f"a\n{results_page.OPEN}\ntable\n{results_page.CLOSE}\nb\n"
    assert results_page.with_block(first, "other\n") == first.replace("table", "other")


def test_a_note_holds_no_number(tmp_path: Path) -> None:
    (tmp_path / "notes.toml").write_text('[mosi]\nint8 = "int8 pays little on short texts"\n')
    assert results_page.notes(tmp_path)["mosi"]["int8"].startswith("int8")
    (tmp_path / "notes.toml").write_text('[mosi]\ndrop = "lost 3 points"\n')
    with pytest.raises(ValueError, match="holds a number"):
        results_page.notes(tmp_path)


def test_who_is_alone_waits_for_the_others_and_keeps_newcomers_out(tmp_path: Path) -> None:
    order: list[str] = []
    alone_asked, finished = threading.Event(), threading.Event()

    def be_alone() -> None:
        alone_asked.set()
        with locks.alone(tmp_path):
            order.append("alone")
        finished.set()

    thread = threading.Thread(target=be_alone)
    with locks.beside_others(tmp_path), locks.beside_others(tmp_path):
        thread.start()
        alone_asked.wait()
        assert not finished.wait(0.1)
        order.append("together")
    thread.join()
    assert order == ["together", "alone"]
