"""Networks to ONNX graphs: one per stage, and one of everything fused.

Integer grids become 8-bit initialisers behind DequantizeLinear, and QuantizeLinear/DequantizeLinear pairs around
activations; constants that a formula gives (Fourier filters, mel bands) stay formulas in the file and are folded when
the runtime loads it.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.export import Dim

from triptych.data.preprocess import ImageResize
from triptych.model.adapt import merged
from triptych.model.codes import ResidualCodebooks
from triptych.model.convolution import GridConv2d
from triptych.model.dense import Dense, Embedding, dequantize, quantize
from triptych.model.experts import ExpertMlps, ExpertMlpsGraph
from triptych.model.multimodal import Multimodal, example_input
from triptych.schema import Modality
from triptych.system.bundle.gated import gate_graphs, joined
from triptych.system.bundle.trace import Several
from triptych.system.bundle.trace import trace as _export
from triptych.tokens import Batch, Tokens

BATCH = Dim("batch", min=1, max=4096)


def export_graphs(model: Multimodal) -> dict[str, bytes]:
    """Every graph of a bundle by name: 'fused', 'decide', '<modality>.encode', '<modality>.exit', '<image>.resize'.

    With a gate also 'gate', '<modality>.stem' and '<modality>.blocks' (see `gated`).
    """
    model = frozen(model)
    graphs = {"fused": export_fused(model, ready=True)}
    streams = {name: model.encode(name, raw) for name, raw in _examples(model, rows=2).items()}
    for name in model.encoders:
        graphs[f"{name}.encode"] = _encode_graph(model, name)
        if name in model.alone:
            graphs[f"{name}.exit"] = _decide_graph(_Exit(model, name), {name: streams[name]})
        if model.schema[name].kind == "image":
            graphs[f"{name}.resize"] = _resize_graph(model.schema[name])
    graphs["decide"] = _decide_graph(_Decide(model), streams)
    if model.gate is not None:
        graphs |= gate_graphs(model, _examples(model, rows=2), {n: _raw_axes(model.schema[n]) for n in model.encoders})
    return graphs


def export_fused(model: Multimodal, *, ready: bool = False) -> bytes:
    """One graph from all raw inputs of one example, named as the modalities, to 'output' (1, outputs).

    Only a text's length is left open: what is known beforehand is computed beforehand.
    """
    model = model if ready else frozen(model)
    raws = _examples(model, rows=1)
    if model.gate is not None:
        return joined(model, raws, {n: {k: v for k, v in _raw_axes(model.schema[n]).items() if k} for n in raws})
    dynamic = [{k: v for k, v in _raw_axes(model.schema[name]).items() if k} for name in raws]
    return _export(_Fused(model), list(raws.values()), list(raws), ["output"], dynamic)


def export_codes(codes: ResidualCodebooks) -> bytes:
    """One graph that encodes vectors: 'x' (batch, dim) float32 to 'codes' (batch, levels) int64."""
    return _export(_Codes(codes), [torch.zeros(2, codes.dim)], ["x"], ["codes"], [{0: BATCH}])


def frozen(model: Multimodal) -> Multimodal:
    """A copy in evaluation mode, adapters folded in where possible and grids as integers, ready for export."""
    model = copy.deepcopy(merged(model)).eval().requires_grad_(requires_grad=False)
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if isinstance(child, Dense) and child.precision != "float32":
                setattr(parent, name, _IntegerDense(child))
            elif isinstance(child, Embedding) and child.precision != "float32":
                setattr(parent, name, _IntegerEmbedding(child))
            elif isinstance(child, GridConv2d) and child.precision == "int8_weights":
                child.store_()
            elif isinstance(child, ExpertMlps):
                setattr(parent, name, ExpertMlpsGraph(child))
    return model


def _examples(model: Multimodal, rows: int) -> dict[str, Tensor]:
    return {name: example_input(model.schema[name], rows) for name in model.encoders}


def _raw_axes(modality: Modality) -> dict[int, Any]:
    return {0: BATCH, 1: Dim("words", min=1, max=modality.max_tokens)} if modality.kind == "text" else {0: BATCH}


def _encode_graph(model: Multimodal, name: str) -> bytes:
    raw = example_input(model.schema[name], 2)
    return _export(_Encode(model, name), [raw], [name], ["x", "mask"], [_raw_axes(model.schema[name])])


def _decide_graph(stage: nn.Module, streams: Mapping[str, Tokens]) -> bytes:
    tensors, names, dynamic = [], [], []
    for name, tokens in streams.items():
        count = Dim(f"{name}_tokens", min=1, max=65536)
        tensors += [tokens.x, tokens.weights()]
        names += [f"{name}.x", f"{name}.mask"]
        dynamic += [{0: BATCH, 1: count}, {0: BATCH, 1: count}]
    return _export(stage, tensors, names, ["output"], dynamic)


def _resize_graph(modality: Modality) -> bytes:
    picture = torch.zeros(1, modality.height + 3, modality.width + 5, modality.channels, dtype=torch.uint8)
    axes = {1: Dim("height", min=1, max=65536), 2: Dim("width", min=1, max=65536)}
    resize = ImageResize(modality.height, modality.width)
    return _export(resize, [picture], [modality.name], ["resized"], [axes])


@final
class _Fused(Several):
    def __init__(self, model: Multimodal) -> None:
        super().__init__()
        self.model, self.names = model, tuple(model.encoders)

    def forward(self, *raws: Tensor) -> Tensor:
        out: Tensor = self.model(Batch(dict(zip(self.names, raws, strict=True))))
        return out


@final
class _Encode(nn.Module):
    """raw → x (batch, tokens, dim), mask (batch, tokens) float: what each token weighs, zero where it is not real."""

    def __init__(self, model: Multimodal, name: str) -> None:
        super().__init__()
        self.model, self.name = model, name

    def forward(self, raw: Tensor) -> tuple[Tensor, Tensor]:
        tokens = self.model.encode(self.name, raw)
        return tokens.x, tokens.weights()


@final
class _Decide(Several):
    """x and mask of every modality → output (batch, outputs)"""

    def __init__(self, model: Multimodal) -> None:
        super().__init__()
        self.model, self.names = model, tuple(model.encoders)

    def forward(self, *pairs: Tensor) -> Tensor:
        streams = {name: _tokens(pairs[2 * i], pairs[2 * i + 1]) for i, name in enumerate(self.names)}
        return self.model.decide(streams)


@final
class _Exit(nn.Module):
    """x and mask of one modality → output (batch, outputs)"""

    def __init__(self, model: Multimodal, name: str) -> None:
        super().__init__()
        self.model, self.name = model, name

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return self.model.exit(self.name, _tokens(x, mask))


@final
class _Codes(nn.Module):
    def __init__(self, codes: ResidualCodebooks) -> None:
        super().__init__()
        self.codes = codes

    def forward(self, x: Tensor) -> Tensor:
        return self.codes.encode(x)


def _tokens(x: Tensor, weight: Tensor) -> Tokens:
    return Tokens(x, weight > 0, weight)


@final
class _IntegerDense(nn.Module):
    """A `Dense` whose weights are stored as int8: (inputs, outputs), one scale per output."""

    def __init__(self, dense: Dense) -> None:
        super().__init__()
        scale = dense.weight_scale()
        self.register_buffer(
            "weight", (dense.weight / scale.unsqueeze(1)).round().clamp(-127, 127).to(torch.int8).t().contiguous()
        )
        self.register_buffer("weight_scale", scale)
        self.register_buffer("weight_zero", torch.zeros_like(scale, dtype=torch.int8))
        self.bias, self.adapter = dense.bias, dense.adapter
        self.whole = dense.precision == "int8"
        if self.whole:
            input_scale, input_zero = dense.input_grid()
            self.register_buffer("input_scale", input_scale)
            self.register_buffer("input_zero", input_zero)

    def forward(self, x: Tensor) -> Tensor:
        if self.whole:
            x = quantize(x, self.input_scale, self.input_zero, -1)
        out: Tensor = x @ dequantize(self.weight, self.weight_scale, self.weight_zero, 1)
        out = out if self.bias is None else out + self.bias
        return out if self.adapter is None else self.adapter.after(out)


@final
class _IntegerEmbedding(nn.Module):
    """An `Embedding` stored as int8: (count, dim), one scale per column."""

    def __init__(self, table: Embedding) -> None:
        super().__init__()
        scale = table.column_scale()
        self.register_buffer("weight", (table.weight / scale).round().clamp(-127, 127).to(torch.int8))
        self.register_buffer("scale", scale)
        self.register_buffer("zero", torch.zeros_like(scale, dtype=torch.int8))
        self.weight: Tensor

    def forward(self, ids: Tensor) -> Tensor:
        vectors: Tensor = dequantize(self.weight[ids], self.scale, self.zero, 2)
        return vectors

    def rows(self, count: int) -> Tensor:
        vectors: Tensor = dequantize(self.weight[:count], self.scale, self.zero, 1)
        return vectors
