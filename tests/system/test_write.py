"""A bundle appears whole, true and verified, or not at all."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.system import tiny
from triptych.errors import BundleError, ParityError
from triptych.system.bundle import folder as folder_module
from triptych.system.bundle.weights import share_weights, strip_notes
from triptych.system.runtime import Bundle

ROOT = Path(__file__).parents[2]


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_bundle_says_what_was_written(written):
    bundle = Bundle.load(written, check_golden=True)
    manifest = bundle.manifest
    assert bundle.schema.names == ("image", "text")
    assert bundle.schema["text"].tokenizer == ""
    assert bundle.modality("text").tokenizer == tiny.TOKENIZER
    assert manifest.stages["fused"].facts == {"flops": 123}
    assert manifest.stages["decide"].inputs["text.x"].shape == (None, None, 4)
    assert [p.name for p in manifest.points] == ["full", "stages", "text", "cascade"]
    assert manifest.recipe == [{"technique": "Int8"}]
    assert manifest.reports == {"reference": {"quality": 0.9}}
    total = sum(len(data) for data in contents(written).values())
    golden = (written / "golden.safetensors").stat().st_size
    assert bundle.bundle_bytes == total
    assert bundle.size_bytes == total - golden - len("# colours\n")


def test_weights_are_kept_once_and_aligned():
    graphs, weights = share_weights(tiny.graphs())
    assert len(weights) == 256 + 512
    for name in ("fused", "text.encode"):
        tensors = onnx.load_model_from_string(graphs[name]).graph.initializer
        moved = {t.name: {e.key: e.value for e in t.external_data} for t in tensors if t.external_data}
        place = moved["text.weight"]
        start = int(place["offset"])
        assert place["location"] == "weights.bin"
        assert start % 64 == 0
        assert weights[start : start + int(place["length"])] == tiny.WEIGHTS["text"].tobytes()


def test_weights_that_are_outside_already_are_refused():
    graphs, _ = share_weights(tiny.graphs())
    with pytest.raises(BundleError, match="keeps weights outside"):
        share_weights(graphs)
    with pytest.raises(BundleError, match="'fused' is not an ONNX model"):
        share_weights({"fused": b"\xff\xff\xff"})


def test_notes_are_dropped_and_nothing_else():
    model = onnx.load_model_from_string(tiny.graphs()["fused"])
    plain = model.SerializeToString(deterministic=True)
    model.graph.node[0].metadata_props.add(key="stack", value="long " * 100)
    model.graph.node[0].doc_string = model.doc_string = "where this came from"
    model.graph.value_info.add(name="both")
    assert strip_notes(model.SerializeToString()) == plain


def test_wrong_answers_are_refused_with_graph_example_and_size(tmp_path):
    wrong = {**tiny.WEIGHTS, "text": tiny.WEIGHTS["text"] + 1}
    with pytest.raises(
        ParityError, match=r"the fused graphs miss 4 of 8 examples.*example \d with image \+ text, fused"
    ):
        tiny.write(tmp_path / "b", graphs=tiny.graphs(fused_weights=wrong))
    staged = {k: v for k, v in tiny.graphs(wrong).items() if k != "fused"}
    with pytest.raises(ParityError, match=r"the staged graphs miss .*all of them with \['text'\] and no other"):
        tiny.write(tmp_path / "b", graphs=staged, points=(), stages={})
    assert list(tmp_path.iterdir()) == []


def test_a_difference_within_the_tolerance_passes(tmp_path):
    near = {**tiny.WEIGHTS, "head": tiny.WEIGHTS["head"] * 1.001}
    tiny.write(tmp_path / "b", graphs=tiny.graphs(near), tolerance=0.1)
    with pytest.raises(ParityError):
        tiny.write(tmp_path / "c", graphs=tiny.graphs(near), tolerance=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"golden_inputs": [], "golden_outputs": []}, "golden examples need rows"),
        ({"golden_outputs": [[np.nan] * 3] * 8}, "finite outputs"),
        ({"graphs": {"fused": tiny.graphs()["fused"], "other": tiny.graphs()["fused"]}}, "unknown graphs"),
        ({"graphs": {"decide": tiny.graphs()["decide"]}}, "missing are"),
        ({"graphs": {**tiny.graphs(), "fused": tiny.graphs()["decide"]}}, "graph 'fused' must take some of"),
        ({"points": [{"name": "p", "modalities": ("smell",), "engine": "staged"}]}, "must be some of"),
        ({"points": [{"name": "p", "modalities": ("text",), "engine": "fused"}]}, "needs all modalities"),
        ({"points": [{"name": "p", "modalities": ("text",), "engine": "cascade"}]}, "needs classes and a threshold"),
        ({"points": [{"name": "p", "colour": 1}]}, "not an operating point"),
        ({"points": [tiny.POINTS[0], tiny.POINTS[0]]}, "must differ"),
        ({"recipe": object()}, "cannot be written as JSON"),
        ({"reports": {"a": {"quality": float("nan")}}}, "cannot be written as JSON"),
        ({"stages": {"trunk": {}}}, "facts about"),
        ({"tolerance": 0}, "tolerance must be positive"),
    ],
)
def test_what_cannot_be_a_bundle_is_refused(tmp_path, changes, message):
    with pytest.raises(BundleError, match=message):
        tiny.write(tmp_path / "b", **{"stages": {}, "points": (), **changes})
    assert list(tmp_path.iterdir()) == []


def test_a_bundle_is_replaced_and_nothing_else_is_left(folder):
    tiny.write(folder, provenance={"seed": 1}, card="new")
    assert Bundle.load(folder).manifest.provenance == {"seed": 1}
    assert [p.name for p in folder.parent.iterdir()] == [folder.name]
    assert folder.stat().st_mode & 0o777 == 0o755


def test_a_bundle_is_replaced_where_folders_cannot_be_exchanged(folder, monkeypatch):
    monkeypatch.setattr(folder_module, "_exchange", lambda one, other: False)
    tiny.write(folder, provenance={"seed": 1})
    assert Bundle.load(folder).manifest.provenance == {"seed": 1}
    assert [p.name for p in folder.parent.iterdir()] == [folder.name]


def test_a_failing_rename_puts_the_old_bundle_back(folder, monkeypatch):
    before, rename = contents(folder), Path.rename

    def fail_once(self, to):
        if self.name.startswith(".") and Path(to) == folder and not self.name.endswith("-old"):
            raise OSError("no")
        return rename(self, to)

    monkeypatch.setattr(folder_module, "_exchange", lambda one, other: False)
    monkeypatch.setattr(Path, "rename", fail_once)
    with pytest.raises(BundleError, match="is untouched"):
        tiny.write(folder)
    assert contents(folder) == before


def test_other_folders_files_and_links_are_not_overwritten(tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "letter.txt").write_text("dear")
    (tmp_path / "link").symlink_to(tmp_path / "home")
    (tmp_path / "file").write_text("x")
    for name, message in (("home", "something else than a bundle"), ("link", "a link or a file"), ("file", "a file")):
        with pytest.raises(BundleError, match=message):
            tiny.write(tmp_path / name)
    assert (tmp_path / "home" / "letter.txt").read_text() == "dear"


def test_a_failing_export_leaves_the_old_bundle(folder):
    before = contents(folder)
    with pytest.raises(ParityError):
        tiny.write(folder, golden_outputs=np.ones((8, 3)))
    assert contents(folder) == before
    assert [p.name for p in folder.parent.iterdir()] == [folder.name]


CHILD = """
import os, signal, sys
from pathlib import Path
from tests.system import tiny
{before}
tiny.write(Path(sys.argv[1]), provenance={{"seed": 9}})
"""
KILL = """
left, sync = [int(sys.argv[2])], os.fsync
def fsync(descriptor):
    left[0] -= 1
    if left[0] == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    sync(descriptor)
os.fsync = fsync
"""
FULL = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), -1))
"""


def child(before, folder, number):
    code = CHILD.format(before=before)
    return subprocess.run(
        [sys.executable, "-c", code, str(folder), str(number)], cwd=ROOT, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("sync", [1, 6, 14, 15, 16])
def test_a_killed_export_leaves_a_whole_bundle(folder, sync):
    before = contents(folder)
    assert child(KILL, folder, sync).returncode == -9
    assert contents(folder) == before or Bundle.load(folder).manifest.provenance == {"seed": 9}
    assert Bundle.load(folder, check_golden=True)
    tiny.write(folder, provenance={"seed": 10})
    assert [p.name for p in folder.parent.iterdir()] == [folder.name]


@pytest.mark.parametrize("room", [100, 1200, 2000])
def test_a_full_disk_leaves_the_old_bundle(folder, room):
    before = contents(folder)
    run = child(FULL, folder, room)
    assert run.returncode == 1
    assert "what was there before is untouched" in run.stderr
    assert contents(folder) == before
    assert [p.name for p in folder.parent.iterdir()] == [folder.name]


def test_the_folder_of_a_living_writer_is_left_alone(tmp_path):
    target = tmp_path / "b"
    with folder_module.replacing(target) as temporary:
        (temporary / "manifest.json").write_text("{}")
        tiny.write(target)
        assert temporary.is_dir()
        before = contents(target)
        (temporary / "manifest.json").write_bytes(before["manifest.json"])
    assert [p.name for p in tmp_path.iterdir()] == ["b"]
    assert [p.name for p in target.iterdir()] == ["manifest.json"]
