"""Graphs of a network with a gate: what is left out is not run.

For batches and missing modalities there is a graph per modality before the gate (`<modality>.stem`), the gate itself,
and a graph per modality behind it (`<modality>.blocks`) that takes however many tokens it is given.  For one row with
everything there is 'fused': the same parts joined in one file, where each modality's blocks stand once per number of
tokens that the gate may choose, as branches of an `If`.  One call of the runtime then answers, and a call costs more
than the branch.  Weights stay outside the branches, where all graphs of a bundle share them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from typing import Any, final

import onnx
import torch
from onnx import GraphProto, NodeProto, TensorProto, compose, helper, numpy_helper
from torch import Tensor, nn
from torch.export import Dim

from triptych.errors import ModelError
from triptych.model.gates import Gate, Look
from triptych.model.multimodal import Multimodal
from triptych.select import best_first
from triptych.system.bundle.trace import OPSET, Several, trace
from triptych.tokens import Tokens

Axes = Mapping[int, Any]
Counts = Sequence[int] | None


def gate_graphs(model: Multimodal, raws: Mapping[str, Tensor], axes: Mapping[str, Axes]) -> dict[str, bytes]:
    """'gate', '<modality>.stem' and '<modality>.blocks'.

    raws: examples of two rows; axes: which of theirs are open, the first of all among them
    """
    gate, batch = gate_of(model), next(iter(axes.values()))[0]
    looks = {name: model.look(name, raw) for name, raw in raws.items()}
    graphs = {
        "gate": trace(
            _Choose(gate),
            [look.summary for look in looks.values()],
            [f"{name}.summary" for name in looks],
            ["keep"],
            [{0: batch}] * len(looks),
        )
    }
    for name, raw in raws.items():
        outputs = ["x", "mask", "score", "summary"]
        graphs[f"{name}.stem"] = trace(_Stem(model, name), [raw], [name], outputs, [axes[name]])
        graphs[f"{name}.blocks"] = _blocks(model, name, looks[name], {0: batch})
    return graphs


def joined(model: Multimodal, raws: Mapping[str, Tensor], axes: Mapping[str, Axes]) -> bytes:
    """All in one graph, for one row: 'output' (1, outputs) and 'keep' (1, modalities) int64.

    raws: examples of one row; axes: which of theirs are open
    """
    names = list(raws)
    outputs = [f"{name}.{part}" for name in names for part in ("x", "mask", "order")]
    front = trace(_Front(model), list(raws.values()), names, [*outputs, "keep"], [axes[name] for name in names])
    looks = {name: model.look(name, raw) for name, raw in raws.items()}
    streams = {name: model.go_on(name, look.tokens) for name, look in looks.items()}
    tensors = [t for tokens in streams.values() for t in (tokens.x, tokens.weights())]
    inputs = [f"{name}.{part}" for name in names for part in ("x", "mask")]
    counts = [_open(name, tokens) for name, tokens in streams.items() for _ in range(2)]
    weighted = {name for name, tokens in streams.items() if tokens.weight is not None}
    graph = onnx.load_model_from_string(front).graph
    for place, name in enumerate(names):
        blocks = onnx.load_model_from_string(_blocks(model, name, looks[name], {}))
        known = None if 1 in axes[name] else [count for count in gate_of(model).counts[name] if count]
        _add_branches(graph, blocks, name, place, known)
    last = _part(
        onnx.load_model_from_string(trace(_Decide(model, weighted), tensors, inputs, ["output"], counts)),
        "decide.",
        {name: f"{name}_kept" for name in inputs} | {"output": "output"},
    )
    graph.node.extend(last.node)
    graph.initializer.extend(last.initializer)
    keep = next(value for value in graph.output if value.name == "keep")
    kept_outputs = [*last.output, keep]
    made = helper.make_graph(graph.node, "fused", graph.input, kept_outputs, graph.initializer)
    opset = [helper.make_opsetid("", OPSET)]
    content: bytes = helper.make_model(made, opset_imports=opset, ir_version=10).SerializeToString()
    return content


def gate_of(model: Multimodal) -> Gate:
    """The gate of a network.  Raises ModelError where there is none."""
    if model.gate is None:
        raise ModelError("this network has no gate")
    return model.gate


def _blocks(model: Multimodal, name: str, look: Look, batch: Axes) -> bytes:
    count = Dim(f"{name}_tokens", min=1, max=65536)
    stage = _Blocks(model, name, masked=look.tokens.mask is not None)
    open_axes = {**batch, 1: count}
    tensors = [look.tokens.x, look.tokens.weights()]
    return trace(stage, tensors, ["x", "mask"], ["x_out", "mask_out"], [open_axes, open_axes])


def _open(name: str, whole: Tokens) -> Axes:
    """A modality's number of tokens, which fewer stem tokens change; but one token for them all is one for any."""
    return {} if whole.x.shape[1] == 1 else {1: Dim(f"{name}_tokens", min=1, max=65536)}


def _add_branches(graph: GraphProto, blocks: onnx.ModelProto, name: str, place: int, counts: Counts) -> None:
    """Run a modality's blocks on as many of its best tokens as the gate says, or give one token that is not real.

    counts: what the gate may say, each of which gets its own branch: where a shape is known, the runtime folds and
    fuses more; None where the number of tokens is open, and one branch takes any
    """
    here = f"{name}_branch."
    names = {"x": f"{here}x", "mask": f"{here}mask", "x_out": f"{here}x_out", "mask_out": f"{here}mask_out"}
    part = _part(blocks, here, names)
    _make_what_is_constant(part, (names["x_out"], names["mask_out"]))
    dim = blocks.graph.output[0].type.tensor_type.shape.dim[-1].dim_value
    ends = {count: f"{here}end_{count}" for count in counts} if counts else {1: f"{here}count"}
    constants: dict[str, Any] = {"place": [place], "zero": [0]}
    constants |= {f"end_{count}": [count] for count in counts or ()} | {f"from_{count}": count for count in ends}
    graph.initializer.extend(part.initializer)
    graph.initializer.extend(
        numpy_helper.from_array(torch.tensor(value).numpy(), f"{here}{key}") for key, value in constants.items()
    )
    graph.node.append(helper.make_node("Gather", ["keep", f"{here}place"], [f"{here}cell"], axis=1))
    if not counts:
        graph.node.append(helper.make_node("Squeeze", [f"{here}cell", f"{here}zero"], [f"{here}count"]))
    skip = [_zeros(names["x_out"], (1, 1, dim)), _zeros(names["mask_out"], (1, 1))]
    nodes, outputs = skip, (names["x_out"], names["mask_out"])
    for count, end in ends.items():
        otherwise = _branch(f"{name}_below_{count}", nodes, outputs, dim)
        take = [
            helper.make_node("Slice", [f"{name}.order", f"{here}zero", end, f"{here}zero"], [f"{here}index"]),
            helper.make_node("Gather", [f"{name}.x", f"{here}index"], [names["x"]], axis=1),
            helper.make_node("Gather", [f"{name}.mask", f"{here}index"], [names["mask"]], axis=1),
        ]
        run = _branch(f"{name}_{count}", [*take, *part.node], (names["x_out"], names["mask_out"]), dim)
        last = count == max(ends)
        outputs = (f"{name}.x_kept", f"{name}.mask_kept") if last else (f"{here}x_{count}", f"{here}mask_{count}")
        nodes = [
            helper.make_node("GreaterOrEqual", [f"{here}cell", f"{here}from_{count}"], [f"{here}is_{count}"]),
            helper.make_node("If", [f"{here}is_{count}"], outputs, then_branch=run, else_branch=otherwise),
        ]
    graph.node.extend(nodes)


def _branch(title: str, nodes: Sequence[NodeProto], outputs: tuple[str, str], dim: int) -> GraphProto:
    x, mask = outputs
    values = [
        helper.make_tensor_value_info(x, TensorProto.FLOAT, [1, None, dim]),
        helper.make_tensor_value_info(mask, TensorProto.FLOAT, [1, None]),
    ]
    return helper.make_graph(nodes, title, [], values)


def _make_what_is_constant(part: GraphProto, outputs: tuple[str, str]) -> None:
    """Have nodes give the outputs that are constants: a branch must not return what lies outside of it."""
    for constant in part.initializer:
        if constant.name in outputs:
            output, constant.name = constant.name, f"{constant.name}.constant"
            part.node.insert(0, helper.make_node("Identity", [constant.name], [output]))


def _zeros(name: str, shape: tuple[int, ...]) -> NodeProto:
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(torch.zeros(shape).numpy()))


def _part(model: onnx.ModelProto, prefix: str, renames: Mapping[str, str]) -> GraphProto:
    """A graph with its own names, but for its inputs and outputs, which are called as `renames` says."""
    given = {f"{prefix}{old}": new for old, new in renames.items()}
    graph = compose.add_prefix(model, prefix).graph
    for node in graph.node:
        for side in (node.input, node.output):
            for number, value in enumerate(side):
                side[number] = given.get(value, value)
    for value in (*graph.input, *graph.output):
        value.name = given.get(value.name, value.name)
    return graph


@final
class _Stem(nn.Module):
    """raw → x (batch, tokens, dim), mask, score (batch, tokens), summary (batch, width)"""

    def __init__(self, model: Multimodal, name: str) -> None:
        super().__init__()
        self.model, self.name = model, name

    def forward(self, raw: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        look = self.model.look(self.name, raw)
        return look.tokens.x, look.tokens.weights(), look.score, look.summary


@final
class _Choose(Several):
    """The summaries of all modalities → keep (batch, modalities) int64"""

    def __init__(self, gate: Gate) -> None:
        super().__init__()
        self.gate = gate

    def forward(self, *summaries: Tensor) -> Tensor:
        return self.gate.choose(torch.stack(summaries, dim=1))


@final
class _Blocks(nn.Module):
    """x and mask of some tokens → x and mask of what goes to the fusion"""

    def __init__(self, model: Multimodal, name: str, *, masked: bool) -> None:
        super().__init__()
        self.model, self.name, self.masked = model, name, masked

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        tokens = self.model.go_on(self.name, Tokens(x, mask > 0 if self.masked else None))
        return tokens.x, tokens.weights()


@final
class _Front(Several):
    """All raw inputs of one row → x, mask and order (tokens,) of each modality's tokens, best first; keep"""

    def __init__(self, model: Multimodal) -> None:
        super().__init__()
        self.model, self.gate, self.names = model, gate_of(model), tuple(model.encoders)

    def forward(self, *raws: Tensor) -> tuple[Tensor, ...]:
        looks = {name: self.model.look(name, raw) for name, raw in zip(self.names, raws, strict=True)}
        parts = [
            part
            for look in looks.values()
            for part in (look.tokens.x, look.tokens.weights(), best_first(look.tokens, look.score)[0])
        ]
        return (*parts, self.gate.choose(self.gate.summaries(looks)))


@final
class _Decide(Several):
    """x and mask of every modality, of one row → output (1, outputs)

    weighted: modalities whose tokens may weigh something else than one
    """

    def __init__(self, model: Multimodal, weighted: Set[str]) -> None:
        super().__init__()
        self.model, self.weighted, self.names = model, weighted, tuple(model.encoders)

    def forward(self, *pairs: Tensor) -> Tensor:
        streams = {}
        for name, x, weight in zip(self.names, pairs[::2], pairs[1::2], strict=True):
            streams[name] = Tokens(x, weight > 0, weight if name in self.weighted else None)
        return self.model.decide(streams)
