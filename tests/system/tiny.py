"""A bundle of two modalities with a linear encoder each, built by hand, and the same network in numpy."""

from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from triptych.schema import Modality, Schema
from triptych.system.bundle.write import write_bundle

TOKENIZER = """{"version":"1.0","truncation":null,"padding":null,"added_tokens":[],"normalizer":null,
"pre_tokenizer":{"type":"Whitespace"},"post_processor":null,"decoder":null,
"model":{"type":"WordLevel","vocab":{"[PAD]":0,"[UNK]":1,"what":2,"colour":3,"is":4,"it":5},"unk_token":"[UNK]"}}"""
SCHEMA = Schema(
    name="colours",
    modalities=(
        Modality("image", "image", height=4, width=4, channels=1),
        Modality("text", "text", max_tokens=6, tokenizer=TOKENIZER, vocabulary=32),
    ),
    target="colour",
    task="classification",
    metric="accuracy",
    classes=("red", "green", "blue"),
)
POINTS = (
    {"name": "full", "modalities": ("image", "text"), "engine": "fused", "p50_s": 0.002, "quality": 0.9},
    {"name": "stages", "modalities": ("image", "text"), "engine": "staged", "p50_s": 0.003, "quality": 0.9},
    {"name": "text", "modalities": ("text",), "engine": "staged", "exit": "text", "p50_s": 0.001, "quality": 0.6},
    {"name": "cascade", "modalities": ("text", "image"), "engine": "cascade", "threshold": 0.7, "quality": 0.85},
)
_GENERATOR = np.random.default_rng(0)
WEIGHTS = {
    "image": _GENERATOR.normal(size=(16, 4)).astype(np.float32),
    "text": _GENERATOR.normal(size=(32, 4)).astype(np.float32),
    "head": _GENERATOR.normal(size=(8, 3)).astype(np.float32) * 2,
    "image.exit": _GENERATOR.normal(size=(4, 3)).astype(np.float32),
    "text.exit": _GENERATOR.normal(size=(4, 3)).astype(np.float32) * 2,
}
F32, I64, U8, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.UINT8, TensorProto.BOOL
RAW = {"image": (U8, ["B", 4, 4, 1]), "text": (I64, ["B", "T"])}


def pooled(name, raw):
    if name == "image":
        return (raw.reshape(len(raw), 16).astype(np.float32) / 255) @ WEIGHTS["image"]
    mask = (raw > 0)[..., None]
    return (WEIGHTS["text"][raw] * mask).sum(1) / np.maximum(mask.sum(1), 1)


def expected(inputs):
    """What the graphs must answer.  Returns (batch, classes)."""
    batch = len(next(iter(inputs.values())))
    parts = [pooled(n, inputs[n]) if n in inputs else np.zeros((batch, 4), np.float32) for n in ("image", "text")]
    return (np.concatenate(parts, 1) @ WEIGHTS["head"]).astype(np.float32)


def constant(name, value):
    return numpy_helper.from_array(np.asarray(value), name)


def encode_nodes(name, weights):
    """Nodes from the raw input to `<name>.x` and `<name>.mask`, and their initializers."""
    node = helper.make_node
    x, mask, w = f"{name}.x", f"{name}.mask", f"{name}.weight"
    if name == "text":
        nodes = [node("Gather", [w, name], [x]), node("Greater", [name, "zero"], [mask])]
        return nodes, [constant(w, weights["text"]), constant("zero", np.int64(0))]
    nodes = [
        node("Cast", [name], ["f"], to=F32),
        node("Div", ["f", "full"], ["scaled"]),
        node("Reshape", ["scaled", "flat"], ["row"]),
        node("MatMul", ["row", w], [x]),
        node("ReduceMin", ["row", "last"], ["low"], keepdims=0),
        node("GreaterOrEqual", ["low", "nought"], [mask]),
    ]
    constants = {"full": np.float32(255), "flat": np.array([-1, 1, 16]), "last": np.array([2]), "nought": np.float32(0)}
    return nodes, [constant(w, weights["image"]), *(constant(k, v) for k, v in constants.items())]


def pool_nodes(name):
    """Nodes from `<name>.x` and `<name>.mask` to `<name>.pooled`."""
    node, p = helper.make_node, f"{name}."
    return [
        node("Cast", [p + "mask"], [p + "m"], to=F32),
        node("Unsqueeze", [p + "m", "end"], [p + "wide"]),
        node("Mul", [p + "x", p + "wide"], [p + "kept"]),
        node("ReduceSum", [p + "kept", "tokens"], [p + "sum"], keepdims=0),
        node("ReduceSum", [p + "m", "tokens"], [p + "count"], keepdims=1),
        node("Max", [p + "count", "one"], [p + "least"]),
        node("Div", [p + "sum", p + "least"], [p + "pooled"]),
    ]


POOL = {"end": np.array([2]), "tokens": np.array([1]), "one": np.float32(1)}


def streams(*names, prefix=True):
    pairs = [(f"{n}." if prefix else "", n) for n in names]
    return [
        value
        for p, n in pairs
        for value in (
            helper.make_tensor_value_info(f"{p}x", F32, ["B", f"{n}_T", 4]),
            helper.make_tensor_value_info(f"{p}mask", BOOL, ["B", f"{n}_T"]),
        )
    ]


def model(nodes, inputs, outputs, constants):
    graph = helper.make_graph(nodes, "g", inputs, outputs, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9).SerializeToString()


def renamed(nodes, name):
    """The nodes with `<name>.x` and `<name>.mask` called `x` and `mask`."""
    for node in nodes:
        for side in (node.input, node.output):
            for i, value in enumerate(side):
                if value in {f"{name}.x", f"{name}.mask"}:
                    side[i] = value.removeprefix(f"{name}.")
    return nodes


def graphs(weights=WEIGHTS, fused_weights=None, one_row=False):
    rows = 1 if one_row else "B"
    raw = {n: helper.make_tensor_value_info(n, *RAW[n]) for n in RAW}
    output = helper.make_tensor_value_info("output", F32, ["B", 3])
    pool = [constant(k, v) for k, v in POOL.items()]
    head = [
        helper.make_node("Concat", ["image.pooled", "text.pooled"], ["both"], axis=1),
        helper.make_node("MatMul", ["both", "head"], ["output"]),
    ]
    decide = [*pool_nodes("image"), *pool_nodes("text"), *head]
    found = {"decide": model(decide, streams("image", "text"), [output], [*pool, constant("head", weights["head"])])}
    for name in RAW:
        nodes, constants = encode_nodes(name, weights)
        found[f"{name}.encode"] = model(renamed(nodes, name), [raw[name]], streams(name, prefix=False), constants)
        prefix = name == "text"  # both ways of naming are understood
        exit_nodes = [*pool_nodes(name), helper.make_node("MatMul", [f"{name}.pooled", "w"], ["output"])]
        found[f"{name}.exit"] = model(
            exit_nodes if prefix else renamed(exit_nodes, name),
            streams(name, prefix=prefix),
            [output],
            [*pool, constant("w", weights[f"{name}.exit"])],
        )
    used = fused_weights or weights
    parts = [encode_nodes(name, used) for name in RAW]
    found["fused"] = model(
        [*parts[0][0], *parts[1][0], *decide],
        [helper.make_tensor_value_info(n, RAW[n][0], [rows, *RAW[n][1][1:]]) for n in RAW],
        [output],
        [*parts[0][1], *parts[1][1], *pool, constant("head", used["head"])],
    )
    found["image.resize"] = model(
        [helper.make_node("Resize", ["image", "", "", "sizes"], ["resized"], mode="nearest")],
        [helper.make_tensor_value_info("image", U8, [1, "H", "W", 1])],
        [helper.make_tensor_value_info("resized", U8, [1, 4, 4, 1])],
        [constant("sizes", np.array([1, 4, 4, 1]))],
    )
    return found


def example(seed, *names):
    generator = np.random.default_rng(seed)
    text = np.zeros((1, 6), np.int64)
    length = generator.integers(1, 7)
    text[0, :length] = generator.integers(1, 32, length)
    row = {"image": generator.integers(0, 256, (1, 4, 4, 1)).astype(np.uint8), "text": text}
    return {n: row[n] for n in names or RAW}


def rows(count=8):
    choices = [(), (), ("image",), ("text",)]
    return [example(i, *choices[i % 4]) for i in range(count)]


def write(folder: Path, **changes) -> Path:
    golden = changes.pop("golden_inputs", rows())
    options = {
        "schema": SCHEMA,
        "graphs": graphs(),
        "golden_inputs": golden,
        "golden_outputs": [expected(row) for row in golden],
        "points": POINTS,
        "stages": {"fused": {"flops": 123}},
        "recipe": [{"technique": "Int8"}],
        "reports": {"reference": {"quality": 0.9}},
        "provenance": {"seed": 0},
        "card": "# colours\n",
        "tolerance": 1e-4,
    }
    return write_bundle(folder, **{**options, **changes})
