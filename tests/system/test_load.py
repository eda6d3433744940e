"""The loader takes a folder from a stranger: it gives the promised answers or a BundleError."""

import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from tests.system import tiny
from triptych.errors import BundleError, ParityError, TriptychError
from triptych.system.runtime import Bundle
from triptych.system.runtime.manifest import MAX_MANIFEST_BYTES
from triptych.system.runtime.wire import weight_locations

ROW = tiny.example(1)
FILES = [
    "manifest.json",
    "MODEL_CARD.md",
    "golden.safetensors",
    "tokenizer.text.json",
    "graphs/weights.bin",
    "graphs/fused.onnx",
    "graphs/decide.onnx",
    "graphs/text.encode.onnx",
]


def edit(folder, change):
    """Change the manifest as someone would who knows how to sign it again."""
    path = folder / "manifest.json"
    record = json.loads(path.read_text())
    record = change(record) or record
    record.pop("digest", None)
    canonical = json.dumps(record, sort_keys=True, separators=(",", ":"))
    record["digest"] = hashlib.sha256(canonical.encode()).hexdigest()
    path.write_text(json.dumps(record))


def replace_file(folder, name, data):
    (folder / name).write_bytes(data)

    def relist(record):
        record["files"][name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}

    edit(folder, relist)


def test_a_signed_edit_is_accepted(folder):
    edit(folder, lambda record: record.update(provenance={"seed": 7}))
    assert Bundle.load(folder).manifest.provenance == {"seed": 7}


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "notes.txt").write_text("hi"), "unknown files"),
        (lambda f: (f / "graphs" / "more.onnx").write_text("hi"), "unknown files"),
        (lambda f: (f / "graphs" / "deep").mkdir(), "not a plain file"),
        (lambda f: (f / "more").mkdir(), "not a plain file"),
        (lambda f: (f / "MODEL_CARD.md").unlink(), "lacks"),
        (lambda f: (f / "MODEL_CARD.md").write_text("other"), "MODEL_CARD.md is damaged"),
        (lambda f: (f / "graphs" / "decide.onnx").write_bytes(b""), "decide.onnx is damaged"),
        (lambda f: os.link(f / "MODEL_CARD.md", f.parent / "other"), "is a link"),
        (lambda f: (f / "manifest.json").unlink(), "cannot read manifest.json"),
        (lambda f: (f / "manifest.json").write_text("[]"), "must be an object"),
        (lambda f: (f / "manifest.json").write_text("{"), "not valid JSON"),
        (lambda f: (f / "manifest.json").write_bytes(b"\xff\xfe"), "not valid JSON"),
        (lambda f: (f / "manifest.json").write_text('{"a": NaN}'), "NaN is not a JSON number"),
        (lambda f: (f / "manifest.json").write_text('{"a": 1e999}'), "not valid JSON"),
        (lambda f: (f / "manifest.json").write_text('{"a": 1, "a": 2}'), "repeated keys"),
        (lambda f: (f / "manifest.json").write_text("[" * 100_000), "not valid JSON"),
        (lambda f: (f / "manifest.json").write_bytes(b" " * (MAX_MANIFEST_BYTES + 1)), "it may have"),
        (lambda f: edit(f, lambda r: r.update(version=2)), "this runtime reads version 1, got 2"),
        (lambda f: edit(f, lambda r: r.update(format="zip")), "format must be"),
        (lambda f: edit(f, lambda r: r.update(more=1)), "unknown keys"),
        (lambda f: edit(f, lambda r: r.pop("points") and None), "missing keys"),
        (lambda f: edit(f, lambda r: r["files"].update({"../x": {"bytes": 1, "sha256": ""}})), "which belong to no"),
        (lambda f: edit(f, lambda r: r["files"].pop("graphs/fused.onnx") and None), "not among its files"),
        (lambda f: edit(f, lambda r: r["schema"].update(classes="red")), "must be an array"),
        (lambda f: edit(f, lambda r: r["schema"]["modalities"][0].update(height="4")), "must be a whole number"),
        (lambda f: edit(f, lambda r: r["schema"]["modalities"][0].update(height=None)), "must be a whole number"),
        (lambda f: edit(f, lambda r: r["schema"]["modalities"][0].update(name="../x")), "must be an identifier"),
        (lambda f: edit(f, lambda r: r["points"][0].update(p50_s="fast")), "must be a number"),
        (lambda f: edit(f, lambda r: r["points"][0].update(engine="gpu")), "engine must be one of"),
        (lambda f: edit(f, lambda r: r["stages"]["decide"]["inputs"].update({"x": ["float32", [-1]]})), "dtype, shape"),
        (lambda f: edit(f, lambda r: r["stages"]["decide"]["inputs"].update({"text.x": ["O", [None, 1]]})), "types"),
        (lambda f: replace_file(f, "golden.safetensors", b"junk"), "golden examples cannot be read"),
        (lambda f: replace_file(f, "graphs/fused.onnx", b"\x0b"), "graph is malformed"),
        (lambda f: replace_file(f, "graphs/fused.onnx", b""), "'fused' does not load"),
        (lambda f: replace_file(f, "graphs/weights.bin", b"short"), "does not load"),
        (
            lambda f: replace_file(f, "graphs/fused.onnx", (f / "graphs" / "decide.onnx").read_bytes()),
            "graph 'fused' has the inputs",
        ),
    ],
)
def test_damage_is_a_bundle_error(folder, damage, message):
    damage(folder)
    with pytest.raises(BundleError, match=message):
        Bundle.load(folder, check_golden=True)


def test_symbolic_links_are_refused(folder, tmp_path):
    card = folder / "MODEL_CARD.md"
    moved = card.rename(tmp_path / "card")
    card.symlink_to(moved)
    with pytest.raises(BundleError, match="is a link"):
        Bundle.load(folder)
    card.unlink()
    moved.rename(card)
    graphs = (folder / "graphs").rename(tmp_path / "graphs")
    (folder / "graphs").symlink_to(graphs)
    with pytest.raises(BundleError, match="is a link"):
        Bundle.load(folder)


def test_wrong_golden_answers_are_a_parity_error(folder):
    edit(folder, lambda record: record.update(tolerance=1e-30))
    with pytest.raises(ParityError, match="differs by"):
        Bundle.load(folder, check_golden=True)


def test_a_missing_folder_and_no_threads_are_bundle_errors(tmp_path, written):
    with pytest.raises(BundleError, match="cannot read"):
        Bundle.load(tmp_path / "nowhere")
    with pytest.raises(BundleError, match="threads"):
        Bundle.load(written, threads=0)


def test_a_graph_changed_after_loading_is_noticed(folder):
    bundle = Bundle.load(folder)
    (folder / "graphs" / "fused.onnx").write_bytes(b"other")
    with pytest.raises(BundleError, match=r"fused.onnx is damaged"):
        bundle.run(ROW)


def outside_graph(location, *, nested=False):
    tensor = TensorProto(name="w", data_type=1, dims=[4], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=location)
    inner = helper.make_graph([helper.make_node("Identity", ["w"], ["o"])], "g", [], [], [tensor])
    node = helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=inner)
    return helper.make_model(helper.make_graph([node], "o", [], []) if nested else inner).SerializeToString()


@pytest.mark.parametrize("location", ["../../etc/hostname", "/etc/hostname", "other.bin", "*/_ORT_MEM_ADDR_/*"])
@pytest.mark.parametrize("nested", [False, True])
def test_weights_come_from_the_bundle_only(folder, location, nested):
    replace_file(folder, "graphs/fused.onnx", outside_graph(location, nested=nested))
    with pytest.raises(BundleError, match=r"only graphs/weights\.bin is allowed"):
        Bundle.load(folder).run(ROW)


@given(st.binary(max_size=200))
def test_scanning_any_bytes_ends_or_is_a_bundle_error(data):
    try:
        weight_locations(data)
    except BundleError:
        return


def test_scanning_finds_what_onnx_finds(folder):
    for path in (folder / "graphs").glob("*.onnx"):
        model = onnx.load_model(path, load_external_data=False)
        promised = {e.value for t in model.graph.initializer for e in t.external_data if e.key == "location"}
        assert weight_locations(path.read_bytes()) == promised


def damaged(data, draw):
    at = draw(st.integers(0, max(0, len(data) - 1)))
    kind = draw(st.sampled_from(["flip", "cut", "insert", "remove"]))
    match kind:
        case "flip":
            return data[:at] + bytes([data[at] ^ draw(st.integers(1, 255))]) + data[at + 1 :]
        case "cut":
            return data[:at]
        case "insert":
            return data[:at] + draw(st.binary(min_size=1, max_size=9)) + data[at:]
    return data[:at] + data[at + 1 + draw(st.integers(0, 9)) :]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_damaged_byte_is_a_bundle_error_or_harmless(written, data):
    with tempfile.TemporaryDirectory() as space:
        folder = shutil.copytree(written, Path(space) / "b")
        name = data.draw(st.sampled_from(FILES))
        (folder / name).write_bytes(damaged((folder / name).read_bytes(), data.draw))
        try:
            output = Bundle.load(folder, check_golden=True).run(ROW)
        except BundleError:
            return
        assert np.array_equal(output, Bundle.load(written).run(ROW))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def places(value, path=()):
    yield path
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(inner, (*path, key))


def put(record, path, value):
    for key in path[:-1]:
        record = record[key]
    record[path[-1]] = value


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_value_in_a_signed_manifest_is_an_own_error_or_runs(written, data):
    with tempfile.TemporaryDirectory() as space:
        folder = shutil.copytree(written, Path(space) / "b")
        record = json.loads((folder / "manifest.json").read_text())
        del record["digest"]
        path = data.draw(st.sampled_from([p for p in places(record) if p]))
        edit(folder, lambda record: put(record, path, data.draw(JSON)))
        try:
            bundle = Bundle.load(folder, check_golden=True)
            bundle.run(ROW)
            bundle.predict(text="what colour", point="cascade")
        except TriptychError:
            return
