"""Smaller graph files: notes removed, and weights kept once for all graphs."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import onnx
from onnx import ModelProto, TensorProto, numpy_helper

from triptych.errors import BundleError

WEIGHTS_NAME = "weights.bin"
_SMALLEST = 256
_ALIGNMENT = 64
_DATA_FIELDS = ("raw_data", "float_data", "int32_data", "int64_data", "double_data", "uint64_data")


def share_weights(graphs: Mapping[str, bytes]) -> tuple[dict[str, bytes], bytes]:
    """Move every initializer of at least 256 bytes to one file, equal ones once, at multiples of 64 bytes.

    Returns the graphs, which refer to `weights.bin` beside them, and that file's content (empty if nothing moved).
    Raises BundleError where a graph is malformed or keeps weights outside already.
    """
    store, places = bytearray(), dict[bytes, int]()
    models = {name: _parse(name, data) for name, data in graphs.items()}
    for model in models.values():
        for tensor in model.graph.initializer:
            raw = tensor.raw_data or numpy_helper.from_array(numpy_helper.to_array(tensor)).raw_data
            if len(raw) >= _SMALLEST:
                _refer(tensor, _place(raw, store, places), len(raw))
    return {name: model.SerializeToString(deterministic=True) for name, model in models.items()}, bytes(store)


def weight_bytes(graph: bytes) -> int:
    """Bytes of all initializers of a graph that still holds them."""
    model = _parse("graph", graph)
    return sum(numpy_helper.to_array(tensor).nbytes for tensor in model.graph.initializer)


def strip_notes(graph: bytes) -> bytes:
    """Drop what no runtime reads: documentation, exporter metadata, and the types that shape inference finds again."""
    model = _parse("graph", graph)
    nodes = [node for function in model.functions for node in function.node]
    parts = (model, model.graph, *model.functions, *model.graph.node, *nodes)
    values = (*model.graph.input, *model.graph.output, *model.graph.initializer)
    for part in (*parts, *values):
        part.ClearField("doc_string")
        part.ClearField("metadata_props")
    model.graph.ClearField("value_info")
    return bytes(model.SerializeToString(deterministic=True))


def _parse(name: str, data: bytes) -> ModelProto:
    try:
        model = onnx.load_model_from_string(data)
    except Exception as error:
        raise BundleError(f"graph {name!r} is not an ONNX model: {error}") from error
    if any(tensor.data_location == TensorProto.EXTERNAL for tensor in model.graph.initializer):
        raise BundleError(f"graph {name!r} keeps weights outside; give it with its weights inside")
    return model


def _place(raw: bytes, store: bytearray, places: dict[bytes, int]) -> int:
    key = hashlib.sha256(raw).digest()
    if key not in places:
        store.extend(bytes(-len(store) % _ALIGNMENT))
        places[key] = len(store)
        store.extend(raw)
    return places[key]


def _refer(tensor: TensorProto, offset: int, length: int) -> None:
    for field in _DATA_FIELDS:
        tensor.ClearField(field)
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", WEIGHTS_NAME), ("offset", offset), ("length", length)):
        tensor.external_data.add(key=key, value=str(value))
