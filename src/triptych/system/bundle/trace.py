"""One stage of a network to one ONNX graph."""

from __future__ import annotations

import copy
import functools
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import onnx_ir as ir
import onnxscript.optimizer
import torch
from onnxscript import opset20 as op
from torch import Tensor, nn

from triptych.system.bundle.expert_nodes import expert_mlps_node

try:
    from torch.onnx._internal.exporter._registration import ONNXRegistry
except ImportError:  # a torch that keeps them elsewhere: every export gathers them anew, and takes longer
    ONNXRegistry = None  # type: ignore[assignment, misc]

OPSET = 20


class Several(nn.Module):
    """A stage that takes any number of inputs."""


def _quantize_node(x: Any, scale: Any, zero: Any, axis: int) -> Any:
    return op.DequantizeLinear(op.QuantizeLinear(x, scale, zero, axis=axis), scale, zero, axis=axis)


def _dequantize_node(x: Any, scale: Any, zero: Any, axis: int) -> Any:
    return op.DequantizeLinear(x, scale, zero, axis=axis)


def _softsign_node(x: Any) -> Any:
    return op.Softsign(x)


_NODES: dict[Any, Any] = {
    torch.ops.triptych.softsign.default: _softsign_node,
    torch.ops.triptych.quantize.default: _quantize_node,
    torch.ops.triptych.dequantize.default: _dequantize_node,
    torch.ops.triptych.expert_mlps.default: expert_mlps_node,
}


def trace(
    stage: nn.Module,
    args: Sequence[Tensor],
    inputs: Sequence[str],
    outputs: Sequence[str],
    axes: Sequence[Mapping[int, Any]],
) -> bytes:
    """Trace, translate and tidy one stage; its ONNX file as bytes.

    axes: for each input, which of its axes are open
    """
    open_axes = tuple(map(dict, axes))
    shapes = (open_axes,) if isinstance(stage, Several) else open_axes
    with _quiet(), _known_translations(), torch.no_grad():
        program = torch.onnx.export(
            stage.eval(),
            tuple(args),
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_shapes=shapes,
            opset_version=OPSET,
            dynamo=True,
            optimize=False,
            verbose=False,
            external_data=False,
            custom_translation_table=_NODES,
        )
    if program is None:
        raise RuntimeError("torch.onnx.export returned nothing")
    model = program.model
    with _quiet():
        onnxscript.optimizer.optimize_ir(model, input_size_limit=4096, output_size_limit=4096)
    for node in model.graph:
        node.doc_string = None
        node.metadata_props.clear()
    for value in list(model.graph.inputs) + list(model.graph.outputs):
        value.metadata_props.clear()
    model.metadata_props.clear()
    content: bytes = ir.to_proto(model).SerializeToString()
    return content


@functools.cache
def _translations(gather: Callable[..., ONNXRegistry], opset_version: int) -> ONNXRegistry:
    return gather(opset_version=opset_version)


@contextmanager
def _known_translations() -> Iterator[None]:
    """The exporter gathers its translations of all operators anew for every graph, which takes long; here once."""
    if ONNXRegistry is None:
        yield
        return
    gather, as_it_was = ONNXRegistry.from_torchlib, vars(ONNXRegistry)["from_torchlib"]

    def known(opset_version: int) -> ONNXRegistry:  # a copy, for the exporter adds to it
        registry = copy.copy(_translations(gather, opset_version))
        registry.functions = {operator: list(found) for operator, found in registry.functions.items()}
        return registry

    ONNXRegistry.from_torchlib = staticmethod(known)  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        ONNXRegistry.from_torchlib = as_it_was  # type: ignore[method-assign]


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter warns about its own innards and about a missing torchvision; neither concerns the user."""
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(previous)
