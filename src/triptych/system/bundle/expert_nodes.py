"""How the experts of a layer are written into a graph (see `triptych.model.experts.dispatch`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from onnxscript import opset20 as op


def expert_mlps_node(  # noqa: PLR0917 (operators take their tensors by position)
    x: Any,
    token: Any,
    gate: Any,
    counts: Any,
    weights: Sequence[Any],
    grids: Sequence[Any],
    whole: bool,  # noqa: FBT001
) -> Any:
    """Σ gate · expert(token): the working pairs' rows are gathered, split by expert, multiplied, joined and added up.

    Arguments as of `triptych.model.experts.dispatch.expert_mlps`.
    """
    experts = int(counts.shape[0])
    if not whole:
        start: Any = op.Constant(value_ints=[0])
        working = op.ReduceSum(counts, start, keepdims=1)
        token, gate = (op.Slice(part, start, working) for part in (token, gate))
    rows = op.Gather(x, token, axis=0)
    each = len(weights) // experts
    answers = [
        _expert(part, weights[each * number : each * (number + 1)], grids)
        for number, part in enumerate(_split(rows, counts, experts))
    ]
    joined = op.Concat(*answers, axis=0) if experts > 1 else answers[0]
    last: Any = op.Constant(value_ints=[1])
    nothing = op.ConstantOfShape(op.Shape(x))
    return op.ScatterND(nothing, op.Unsqueeze(token, last), op.Mul(joined, op.Unsqueeze(gate, last)), reduction="add")


def _split(rows: Any, counts: Any, experts: int) -> Sequence[Any]:
    if experts == 1:
        return [rows]
    parts: Sequence[Any] = op.Split(rows, counts, axis=0, num_outputs=experts)
    del parts[0].producer().attributes["num_outputs"]  # the recorder asks for it, ONNX forbids it beside sizes
    return parts


def _expert(rows: Any, weights: Sequence[Any], grids: Sequence[Any]) -> Any:
    half = len(weights) // 2
    hidden = op.Gelu(_layer(rows, weights[:half], grids[:2]))
    return _layer(hidden, weights[half:], grids[2:])


def _layer(rows: Any, weights: Sequence[Any], grid: Sequence[Any]) -> Any:
    if grid:
        rows = op.DequantizeLinear(op.QuantizeLinear(rows, *grid), *grid)
    if len(weights) == 2:
        return op.Gemm(rows, *weights)
    matrix, scale, zero, bias = weights
    return op.Add(op.MatMul(rows, op.DequantizeLinear(matrix, scale, zero, axis=1)), bias)
