import dataclasses
import sys
import textwrap
from dataclasses import dataclass, field

import numpy as np
import pytest

from triptych.errors import SchemaError
from triptych.measure import Peer
from triptych.schema import Modality, Schema

SCHEMA = Schema(
    "tiny",
    (
        Modality("left", "table", fields=("a", "b"), center=(0.0, 0.0), scale=(1.0, 1.0)),
        Modality("right", "table", fields=("c",), center=(0.0,), scale=(1.0,)),
    ),
    "y",
    "classification",
    "accuracy",
    classes=("no", "yes"),
)


@dataclass(frozen=True)
class TinySplit:
    """The part of `data.dataset.Split` that measuring uses."""

    examples: list
    targets: np.ndarray
    schema: Schema = SCHEMA

    def __len__(self):
        return len(self.examples)

    @property
    def ids(self):
        return np.array([f"row-{i}" for i in range(len(self))])

    def example(self, row):
        return {name: self.examples[row].get(name) for name in self.schema.names}

    def with_schema(self, schema):
        if schema.classes != self.schema.classes:
            raise SchemaError("other classes")
        return dataclasses.replace(self, schema=schema)


@dataclass(frozen=True)
class TinyData:
    splits: dict
    schema: Schema = SCHEMA
    name: str = "tiny"
    fingerprint: str = "f00d"
    about: dict = field(default_factory=dict)


@pytest.fixture
def data():
    """Six rows; 'left' alone answers rows 0 to 3, row 4 lacks 'right', row 5 has no known target."""
    left = [[1, 0], [0, 1], [1, 0], [0, 1], [1, 0], [0, 1]]
    right = [[0], [0], [5], [5], None, [0]]
    examples = [
        {"left": np.array(a, np.float32), "right": None if b is None else np.array(b, np.float32)}
        for a, b in zip(left, right, strict=True)
    ]
    return TinyData({"test": TinySplit(examples, np.array([0, 1, 1, 1, 0, -1]))})


PRELUDE = """
import json, os, sys, time
import numpy as np

def inputs(request, row):
    names = [n for n in ("left", "right") if n != request.get("without")]
    paths = {n: os.path.join(request["examples"], f"{row}.{n}.npy") for n in names}
    return {n: np.load(p) for n, p in paths.items() if os.path.exists(p)}

def serve(**answers):
    for line in sys.stdin:
        request = json.loads(line)
        print(json.dumps(answers[request["op"]](request)), flush=True)

def logits(given):
    if not given:
        return None
    total = np.zeros((1, 2))
    if "left" in given:
        total += given["left"]
    if "right" in given:
        total[:, 1] += given["right"][:, 0]
    return total[0].tolist()

def load(request):
    return {"can": ["without", "parts", "describe"]}

def times(request):
    return {"samples_s": [0.002] * request["repeat"]}

def predict(request):
    return {"outputs": [logits(inputs(request, row)) for row in range(request["rows"])]}

def parts(request):
    return {"parts_s": {"left.encode": [0.001, 0.003], "decide": [0.0005]}}

def describe(request):
    return {"params": 7, "flops": {"left.encode": 10, "decide": 5}, "versions": {"peer": "1"}}

good = dict(load=load, time=times, predict=predict, parts=parts, describe=describe)
"""


@pytest.fixture
def peer(tmp_path):
    """Make a peer from the lines that end its script; by default it is well behaved."""

    def make(script="serve(**good)", size_bytes=100):
        path = tmp_path / f"peer-{len(list(tmp_path.iterdir()))}.py"
        path.write_text(PRELUDE + textwrap.dedent(script))
        return Peer((sys.executable, str(path)), size_bytes)

    return make
