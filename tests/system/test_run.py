"""Every way through the graphs gives the network's answer, and nothing but well-formed inputs goes in."""

import subprocess
import sys
import threading

import numpy as np
import pytest

from tests.system import tiny
from triptych.errors import BundleError, SchemaError, UnknownModality
from triptych.schema import Modality, Schema
from triptych.system.runtime import Bundle
from triptych.system.runtime.check import Checker


@pytest.fixture(scope="module")
def bundle(written):
    return Bundle.load(written)


def batch(*seeds):
    rows = [tiny.example(seed) for seed in seeds]
    return {name: np.concatenate([row[name] for row in rows]) for name in ("image", "text")}


@pytest.mark.parametrize("engine", ["auto", "fused", "staged"])
def test_every_engine_gives_the_networks_answer(bundle, engine):
    inputs = batch(1, 2, 3)
    np.testing.assert_allclose(bundle.run(inputs, engine), tiny.expected(inputs), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["image", "text"])
def test_a_missing_modality_counts_as_nothing(bundle, name):
    inputs = tiny.example(5, name)
    np.testing.assert_allclose(bundle.run(inputs), tiny.expected(inputs), rtol=1e-4, atol=1e-5)
    with pytest.raises(SchemaError, match="'fused' needs all of"):
        bundle.run(inputs, engine="fused")


def test_padding_a_text_changes_nothing(bundle):
    inputs = tiny.example(4)
    shorter = {**inputs, "text": inputs["text"][:, : int((inputs["text"] > 0).sum())]}
    np.testing.assert_allclose(bundle.run(inputs), bundle.run(shorter), rtol=1e-5)


def test_a_batch_equals_its_rows(bundle):
    together = bundle.run(batch(1, 2, 3))
    np.testing.assert_allclose(together, np.concatenate([bundle.run(batch(i)) for i in (1, 2, 3)]), rtol=1e-5)


@pytest.mark.parametrize("engine", ["auto", "staged"])
def test_other_image_sizes_go_through_the_resize_graph(bundle, engine):
    inputs = tiny.example(3)
    large = {**inputs, "image": inputs["image"].repeat(3, axis=1).repeat(2, axis=2)}
    np.testing.assert_allclose(bundle.run(large, engine), bundle.run(inputs), rtol=1e-5)


def test_other_image_sizes_need_a_resize_graph(tmp_path):
    graphs = {k: v for k, v in tiny.graphs().items() if k != "image.resize"}
    bundle = Bundle.load(tiny.write(tmp_path / "b", graphs=graphs))
    with pytest.raises(SchemaError, match="must be 4x4, got 9x5, and this bundle has no resize graph"):
        bundle.run({"image": np.zeros((1, 9, 5, 1), np.uint8)})
    assert bundle.predict(image=np.zeros((9, 5), np.uint8)).used == ("image",)


def test_auto_takes_what_was_measured_to_be_faster(tmp_path):
    slow = [{**tiny.POINTS[0], "p50_s": 0.009}, tiny.POINTS[1]]
    bundle = Bundle.load(tiny.write(tmp_path / "b", points=slow))
    assert bundle.predict(image=np.zeros((4, 4), np.uint8), text="what").engine == "staged"


def test_a_fused_graph_alone_is_enough_for_whole_rows(tmp_path):
    graphs = {"fused": tiny.graphs()["fused"]}
    options = {"graphs": graphs, "points": (), "golden_inputs": [tiny.example(1)]}
    bundle = Bundle.load(tiny.write(tmp_path / "b", **options))
    assert bundle.run(tiny.example(2)).shape == (1, 3)
    with pytest.raises(SchemaError, match="cannot answer with"):
        bundle.run(tiny.example(2, "text"))


def test_a_fused_graph_for_one_row_answers_batches(tmp_path):
    bundle = Bundle.load(tiny.write(tmp_path / "b", graphs=tiny.graphs(one_row=True)))
    inputs = batch(1, 2, 3)
    for engine in ("auto", "fused", "staged"):
        np.testing.assert_allclose(bundle.run(inputs, engine), tiny.expected(inputs), rtol=1e-4, atol=1e-5)
    rows = [{"image": inputs["image"][i], "text": "what is"} for i in range(3)]
    assert {one.engine for one in bundle.predict_many(rows)} == {"staged"}
    assert bundle.predict(**rows[0]).engine == "fused"


IMAGE, TEXT = np.zeros((1, 4, 4, 1), np.uint8), np.ones((1, 3), np.int64)


@pytest.mark.parametrize(
    ("inputs", "error", "message"),
    [
        ({}, SchemaError, "every modality is missing"),
        ({"smell": IMAGE}, UnknownModality, "no encoder for"),
        ({"image": IMAGE.astype(np.float32)}, SchemaError, "must be a numpy array of uint8, got float32"),
        ({"image": [[0]]}, SchemaError, "must be a numpy array of uint8, got list"),
        ({"text": TEXT.astype(">i8")}, SchemaError, "must be a numpy array of int64"),
        ({"image": IMAGE[0]}, SchemaError, r"shape \(batch, 4, 4, 1\), got \(4, 4, 1\)"),
        ({"image": np.zeros((1, 4, 4, 3), np.uint8)}, SchemaError, "must have the shape"),
        ({"image": IMAGE[:, :0]}, SchemaError, "is empty"),
        ({"text": TEXT[:0]}, SchemaError, "is empty"),
        ({"text": TEXT[:, :0]}, SchemaError, "is empty"),
        ({"text": TEXT[0]}, SchemaError, "must have the shape"),
        ({"text": -TEXT}, SchemaError, r"ids must be in \[0, 32\), got \[-1, -1\]"),
        ({"text": TEXT * 32}, SchemaError, r"ids must be in"),
        ({"text": np.ones((1, 7), np.int64)}, SchemaError, "at most 6 are read"),
        ({"image": IMAGE, "text": TEXT.repeat(2, axis=0)}, SchemaError, r"same number of rows, got 1 and 2"),
    ],
)
def test_what_is_not_an_input_is_refused(bundle, inputs, error, message):
    with pytest.raises(error, match=message):
        bundle.run(inputs)


NUMBERS = Schema(
    name="n",
    modalities=(
        Modality("audio", "audio", max_samples=5),
        Modality("series", "series", frames=3, channels=2),
        Modality("table", "table", fields=("a", "b")),
    ),
    target="t",
    task="regression",
    metric="mae",
)


@pytest.mark.parametrize(("name", "shape"), [("audio", (1, 5)), ("series", (1, 3, 2)), ("table", (1, 2))])
def test_numbers_may_be_missing_but_not_infinite(name, shape):
    values = np.full(shape, np.nan, np.float32)
    Checker(NUMBERS)({name: values})
    values[0, 0] = np.inf
    with pytest.raises(SchemaError, match="infinity"):
        Checker(NUMBERS)({name: values})
    with pytest.raises(SchemaError, match="must have the shape"):
        Checker(NUMBERS)({name: values[:, :1]})


def test_a_profile_times_every_stage(bundle):
    times = bundle.profile(tiny.example(1), repeat=3)
    assert list(times) == ["image.encode", "text.encode", "decide", "fused"]
    assert all(len(samples) == 3 and min(samples) > 0 for samples in times.values())
    assert list(bundle.profile(tiny.example(1, "text"), repeat=1)) == ["text.encode", "decide"]


def test_graphs_are_opened_when_needed(written):
    bundle = Bundle.load(written)
    assert not bundle.stages.opened
    bundle.run(tiny.example(1, "text"))
    assert bundle.stages.opened == {"text.encode", "decide"}
    with pytest.raises(BundleError, match="has no graph 'trunk'"):
        bundle.stages.run("trunk", {})


def test_threads_share_a_bundle(written):
    bundle, found = Bundle.load(written), []
    inputs = tiny.example(1)
    threads = [threading.Thread(target=lambda: found.append(bundle.run(inputs))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert all(np.array_equal(output, found[0]) for output in found)


LEAN = """
import sys
import numpy as np
from triptych.system.runtime import Bundle
bundle = Bundle.load(sys.argv[1])
bundle.run({"image": np.zeros((1, 4, 4, 1), np.uint8), "text": np.ones((1, 2), np.int64)})
print(*sorted({name.partition(".")[0] for name in sys.modules}))
"""


def test_raw_arrays_load_nothing_but_numpy_and_onnxruntime(written):
    run = subprocess.run([sys.executable, "-c", LEAN, str(written)], capture_output=True, text=True, check=True)
    loaded = set(run.stdout.split())
    heavy = {"torch", "onnx", "pyarrow", "rich", "transformers", "PIL", "soundfile", "tokenizers", "safetensors"}
    assert not loaded & (heavy | {"hashlib", "pathlib", "cyclopts"})
