"""Graphs, their tensors and the operating points made of them, and whether they fit together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from triptych.errors import BundleError
from triptych.schema import Modality, Schema

RESERVED = frozenset({"output", "point", "deadline_s", "limits"})
DTYPES = frozenset({"float64", "float32", "float16", "int64", "int32", "int16", "int8", "uint8", "bool"})
Engine = Literal["fused", "staged", "cascade"]


@dataclass(frozen=True, slots=True)
class Tensor:
    """Type of a graph's input or output.  shape: None where an axis is dynamic"""

    dtype: str
    shape: tuple[int | None, ...]


@dataclass(frozen=True, slots=True)
class Stage:
    """One graph: its tensors by name in graph order, and facts about it such as its operations."""

    inputs: Mapping[str, Tensor]
    outputs: Mapping[str, Tensor]
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Point:
    """An operating point: which modalities and graphs answer, and what that was measured to cost and to be worth.

    modalities: for a cascade in the order in which they are run
    exit: the modality whose exit head answers, in place of the fusion
    threshold: a cascade stops when its largest probability reaches this
    p50_s, quality: None where not measured
    """

    name: str
    modalities: tuple[str, ...]
    engine: Engine
    exit: str | None = None
    threshold: float | None = None
    p50_s: float | None = None
    quality: float | None = None


def check_stages(schema: Schema, stages: Mapping[str, Stage]) -> None:
    """Raise BundleError unless the graphs are those that a bundle of this schema can have, and enough to run."""
    if reserved := RESERVED & set(schema.names):
        raise BundleError(f"a modality may not be called {sorted(reserved)}; rename it in the schema")
    encoders = {f"{name}.encode" for name in schema.names}
    resizers = {f"{m.name}.resize" for m in schema.modalities if m.kind == "image"}
    gated = {"gate", *(f"{name}.{part}" for name in schema.names for part in ("stem", "blocks"))}
    known = encoders | resizers | {f"{name}.exit" for name in schema.names} | {"decide", "fused"} | gated
    if unknown := stages.keys() - known:
        raise BundleError(f"unknown graphs {sorted(unknown)}; a bundle of this schema may have {sorted(known)}")
    if "fused" not in stages and (missing := (encoders | {"decide"}) - stages.keys()):
        raise BundleError(f"a bundle needs the graph 'fused', or all stages; missing are {sorted(missing)}")
    if (found := gated & stages.keys()) and (missing := (gated | encoders | {"decide"}) - stages.keys()):
        raise BundleError(f"a gate needs all of its graphs; with {sorted(found)} there are no {sorted(missing)}")
    _check_tensors(schema, stages)


def check_point(point: Point, schema: Schema, stages: Mapping[str, Stage]) -> None:
    """Raise BundleError unless the operating point can run on these graphs."""
    where = f"operating point {point.name!r}"
    wanted = {f"{name}.encode" for name in point.modalities} | {"decide"}
    if not point.modalities or set(point.modalities) - set(schema.names):
        raise BundleError(f"{where}: modalities must be some of {list(schema.names)}, got {list(point.modalities)}")
    match point.engine:
        case "fused":
            wanted = {"fused"}
            if set(point.modalities) != set(schema.names):
                raise BundleError(f"{where}: the fused graph needs all modalities {list(schema.names)}")
        case "cascade":
            wanted |= {f"{name}.exit" for name in point.modalities[:-1]}
            if point.threshold is None or not 0 < point.threshold <= 1 or schema.task != "classification":
                raise BundleError(f"{where}: a cascade needs classes and a threshold in (0, 1], got {point.threshold}")
    if point.exit is not None:
        wanted = {f"{point.exit}.encode", f"{point.exit}.exit"}
        if point.engine != "staged" or point.modalities != (point.exit,):
            raise BundleError(f"{where}: an exit runs staged on its own modality, got {point}")
    if missing := wanted - stages.keys():
        raise BundleError(f"{where} needs the graphs {sorted(missing)}, which the bundle lacks")


def _check_tensors(schema: Schema, stages: Mapping[str, Stage]) -> None:
    """What one graph gives must be what the next one takes."""
    streams: dict[str, set[str]] = {}
    for modality in schema.modalities:
        streams[modality.name] = _check_modality(modality, stages)
    if "decide" in stages:
        flat = {f"{name}.{key}" for name, keys in streams.items() for key in keys}
        _check_sides("decide", stages["decide"], flat, {"output"})
        for key, tensor in stages["decide"].inputs.items():
            if len(tensor.shape) < 2 or None in tensor.shape[2:]:
                raise BundleError(f"decide: {key} must be (batch, tokens, …) with a fixed width, got {tensor.shape}")
    if "fused" in stages:
        answers = {"output", "keep"} if "gate" in stages else {"output"}
        _check_sides("fused", stages["fused"], set(schema.names), answers)
    if "gate" in stages:
        _check_gate(schema, stages)
    if schema.task == "retrieval":
        _check_embeddings(schema, stages)
    if wrong := {t.dtype for s in stages.values() for t in (*s.inputs.values(), *s.outputs.values())} - DTYPES:
        raise BundleError(f"graphs may use the types {sorted(DTYPES)}, got {sorted(wrong)}")


def _check_gate(schema: Schema, stages: Mapping[str, Stage]) -> None:
    """What the stems show the gate, and what of it the blocks take."""
    _check_sides("gate", stages["gate"], {f"{name}.summary" for name in schema.names}, {"keep"})
    for name in schema.names:
        _check_sides(f"{name}.stem", stages[f"{name}.stem"], {name}, {"x", "mask", "score", "summary"})
        _check_sides(f"{name}.blocks", stages[f"{name}.blocks"], {"x", "mask"}, {"x_out", "mask_out"})
        if len(stages[f"{name}.stem"].outputs["x"].shape) != 3:
            raise BundleError(f"{name}.stem must give x of shape (batch, tokens, dim)")


def output_width(name: str, schema: Schema, stages: Mapping[str, Stage]) -> int | None:
    """Numbers that a graph answers a row with; what it declares where the schema leaves that to the network."""
    return schema.outputs or stages[name].outputs["output"].shape[-1]


def _check_embeddings(schema: Schema, stages: Mapping[str, Stage]) -> None:
    """Each side needs a graph that embeds it alone; all widths must be known and agree."""
    answering = [f"{name}.exit" for name in schema.names]
    if missing := {*answering, *(f"{name}.encode" for name in schema.names)} - stages.keys():
        raise BundleError(f"a bundle for retrieval embeds each side alone; missing are the graphs {sorted(missing)}")
    shapes = {name: stages[name].outputs["output"].shape for name in (*answering, "decide", "fused") if name in stages}
    widths = {name: shape[-1] if len(shape) == 2 else None for name, shape in shapes.items()}
    one = widths[answering[0]]
    if not one or any(width != (one if name in answering else 2 * one) for name, width in widths.items()):
        raise BundleError(f"the graphs of a pair must give embeddings of one known width, or two, got {shapes}")


def _check_modality(modality: Modality, stages: Mapping[str, Stage]) -> set[str]:
    """Names of the tensors that its encoder gives."""
    encoder = stages.get(f"{modality.name}.encode", Stage({}, {}))
    keys = set(encoder.outputs)
    _check_sides(f"{modality.name}.encode", encoder, {modality.name}, keys)
    either = keys | {f"{modality.name}.{key}" for key in keys}
    _check_sides(f"{modality.name}.exit", stages.get(f"{modality.name}.exit"), either, {"output"})
    resizer = stages.get(f"{modality.name}.resize")
    if resizer and (len(resizer.inputs), len(resizer.outputs)) != (1, 1):
        raise BundleError(f"{modality.name}.resize must have one input and one output, got {resizer}")
    return keys


def _check_sides(name: str, stage: Stage | None, inputs: set[str], outputs: set[str]) -> None:
    if stage and (not stage.inputs.keys() <= inputs or stage.outputs.keys() != outputs):
        raise BundleError(
            f"graph {name!r} must take some of {sorted(inputs)} and give {sorted(outputs)}; "
            f"it takes {sorted(stage.inputs)} and gives {sorted(stage.outputs)}"
        )
