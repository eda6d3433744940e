"""Where an ONNX graph wants its weights read from, found without the onnx package.

A walk over the protocol-buffer wire format that descends only towards `TensorProto.external_data`, so that no file but
the bundle's own weights is ever opened, whatever version of onnxruntime loads the graph.
"""

from __future__ import annotations

from collections.abc import Iterator

from triptych.errors import BundleError

_CHILDREN: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "entry"},
    "entry": {},
}
_KEY, _VALUE = 1, 2


def weight_locations(graph: bytes) -> set[str]:
    """Names of the files that the graph refers to for weights.  Raises BundleError if it is malformed."""
    found: set[str] = set()
    waiting: list[tuple[str, memoryview]] = [("model", memoryview(graph))]
    while waiting:
        kind, data = waiting.pop()
        parts = list(_fields(data))
        if kind == "entry" and any(number == _KEY and bytes(value) == b"location" for number, value in parts):
            found |= {bytes(value).decode(errors="replace") for number, value in parts if number == _VALUE}
        children = _CHILDREN[kind]
        waiting += [(children[number], value) for number, value in parts if number in children]
    return found


def _fields(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Number and content of each length-delimited field."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        match tag & 7:
            case 0:
                _, at = _varint(data, at)
            case 1:
                at += 8
            case 2:
                size, at = _varint(data, at)
                yield tag >> 3, data[at : at + size]
                at += size
            case 5:
                at += 4
            case other:
                raise BundleError(f"a graph is malformed: wire type {other}")
        if at > len(data):
            raise BundleError("a graph is malformed: a field is longer than what holds it")


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            break
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise BundleError("a graph is malformed: a number does not end")
