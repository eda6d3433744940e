"""Graphs to a verified bundle folder."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ValueInfoProto, helper

from triptych.errors import BundleError, ParityError
from triptych.measure.report import Report
from triptych.schema import Schema
from triptych.system.bundle.folder import replacing, write_files
from triptych.system.bundle.weights import share_weights, strip_notes
from triptych.system.runtime import Bundle, Manifest, Point
from triptych.system.runtime.check import row_shape
from triptych.system.runtime.files import CARD, GOLDEN, MANIFEST, WEIGHTS, Entry, digest
from triptych.system.runtime.golden import Golden
from triptych.system.runtime.wiring import Stage, Tensor

Array = NDArray[Any]


def write_bundle(
    folder: str | os.PathLike[str],
    *,
    schema: Schema,
    graphs: Mapping[str, bytes],
    golden_inputs: Sequence[Mapping[str, Array]],
    golden_outputs: Sequence[Array] | Array,
    stages: Mapping[str, Mapping[str, Any]] | None = None,
    points: Sequence[Point | Mapping[str, Any]] = (),
    recipe: Any = None,
    reports: Mapping[str, Report | Mapping[str, Any]] | None = None,
    provenance: Mapping[str, Any] | None = None,
    card: str = "",
    tolerance: float = 1e-3,
) -> Path:
    """Write a bundle whole or not at all, after it has answered its own golden examples from the disk.

    graphs: ONNX models by name: '<modality>.encode', '.exit', '.resize', 'decide', 'fused'
    golden_inputs: raw rows by modality name, with or without a batch axis of one; golden_outputs: (rows, outputs)
    stages: facts to store with each graph, such as its operations; recipe: any JSON value
    tolerance: largest difference, times the larger of 1 and the row's largest expected number
    Raises ParityError where the runtime disagrees with the golden outputs, BundleError where anything else is wrong;
    a bundle that was there before is then as it was.
    """
    shared, weights = share_weights({name: strip_notes(graph) for name, graph in graphs.items()})
    golden = _golden(schema, golden_inputs, golden_outputs)
    files = {f"graphs/{name}.onnx": graph for name, graph in shared.items()}
    files |= {WEIGHTS: weights} if weights else {}
    files |= {f"tokenizer.{m.name}.json": m.tokenizer.encode() for m in schema.modalities if m.tokenizer}
    files |= {GOLDEN: golden.to_bytes(), CARD: card.encode()}
    manifest = Manifest(
        schema=_without_tokenizers(schema),
        stages=_stages(shared, stages or {}),
        points=tuple(point if isinstance(point, Point) else _point(point) for point in points),
        tolerance=tolerance,
        recipe=recipe,
        reports={k: v.to_dict() if isinstance(v, Report) else dict(v) for k, v in (reports or {}).items()},
        provenance=dict(provenance or {}),
        files={name: Entry(len(data), digest(data)) for name, data in files.items()},
    )
    target = Path(folder)
    with replacing(target) as temporary:
        write_files(temporary, {**files, MANIFEST: _manifest_bytes(manifest)})
        verify(Bundle.load(temporary))
    return target


def verify(bundle: Bundle) -> None:
    """Run every graph and every operating point of a bundle once, and all golden examples.

    Raises ParityError where an answer differs from the exported network's, BundleError where a graph does not run.
    """
    golden = bundle.golden()
    bundle.check_golden()
    full = max(golden.rows, key=len)
    for name in bundle.manifest.stages:
        modality, _, part = name.partition(".")
        if part == "exit" and modality in full:
            _check_finite(name, bundle.stages.exit(modality, bundle.stages.encode(modality, full[modality])))
        if part == "resize":
            _check_resize(bundle, modality)
    for point in bundle.manifest.points:
        if set(point.modalities) <= full.keys():
            _check_finite(f"point {point.name}", bundle.stages.point(full, point).output)


def _check_finite(what: str, output: Array) -> None:
    if not np.isfinite(output).all():
        raise ParityError(f"{what} gives a number that is not finite: {output.tolist()}")


def _check_resize(bundle: Bundle, name: str) -> None:
    modality = bundle.schema[name]
    image = np.zeros((1, 2 * modality.height + 1, modality.width + 3, modality.channels), np.uint8)
    small = bundle.stages.resize(name, image)
    wanted = (1, modality.height, modality.width, modality.channels)
    if small.shape != wanted or small.dtype != np.uint8:
        raise ParityError(f"{name}.resize must give uint8 of shape {wanted}, got {small.dtype} of {small.shape}")


def _golden(schema: Schema, rows: Sequence[Mapping[str, Array]], outputs: Sequence[Array] | Array) -> Golden:
    expected = np.asarray(outputs, np.float32)
    width = schema.outputs or expected.shape[-1]  # retrieval: what the graphs give, which answering them compares
    if not rows or expected.size != len(rows) * width or not np.isfinite(expected).all():
        raise BundleError(
            f"golden examples need rows and finite outputs of shape (rows, {width}), got {len(rows)} rows and "
            f"{expected.shape}"
        )
    expected = expected.reshape(len(rows), width)
    return Golden([{name: _with_batch(schema, name, value) for name, value in row.items()} for row in rows], expected)


def _with_batch(schema: Schema, name: str, value: Array) -> Array:
    value = np.asarray(value)
    return value[None] if value.ndim == len(row_shape(schema[name])) else value


def _without_tokenizers(schema: Schema) -> Schema:
    return dataclasses.replace(
        schema, modalities=tuple(dataclasses.replace(modality, tokenizer="") for modality in schema.modalities)
    )


def _point(record: Mapping[str, Any]) -> Point:
    try:
        return Point(**{**record, "modalities": tuple(record.get("modalities", ()))})
    except TypeError as error:
        raise BundleError(f"not an operating point: {error}; got {dict(record)}") from error


def _stages(graphs: Mapping[str, bytes], facts: Mapping[str, Mapping[str, Any]]) -> dict[str, Stage]:
    if unknown := facts.keys() - graphs.keys():
        raise BundleError(f"facts about {sorted(unknown)}, but there are only the graphs {sorted(graphs)}")
    return {name: _stage(data, facts.get(name, {})) for name, data in graphs.items()}


def _stage(data: bytes, facts: Mapping[str, Any]) -> Stage:
    graph = onnx.load_model_from_string(data).graph
    weights = {tensor.name for tensor in graph.initializer}
    return Stage(
        inputs={value.name: _tensor(value) for value in graph.input if value.name not in weights},
        outputs={value.name: _tensor(value) for value in graph.output},
        facts=dict(facts),
    )


def _tensor(value: ValueInfoProto) -> Tensor:
    kind = value.type.tensor_type
    shape = tuple(axis.dim_value if axis.HasField("dim_value") else None for axis in kind.shape.dim)
    return Tensor(helper.tensor_dtype_to_np_dtype(kind.elem_type).name, shape)


def _manifest_bytes(manifest: Manifest) -> bytes:
    try:
        data = manifest.to_json()
        Manifest.from_json(data)
    except (TypeError, ValueError) as error:
        raise BundleError(f"the manifest cannot be written as JSON: {error}") from error
    return data
