"""onnxruntime sessions, set up for one prediction at a time in little memory.

bench/session_options.py measures each choice, and docs/results.md shows what it found:

  int8         a product and the bias after it stay two nodes: joined, onnxruntime finds no integer kernel for them.
  weights      external data that onnxruntime maps tensor by tensor, in a file that was hashed, from a graph that was
               scanned; embedded or handed over in memory they are held twice while loading.
  the rest     (arena, memory pattern, prepacking, optimisation) as onnxruntime has it: none of them changes seconds
               and memory for the better by more than a few per cent.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, final

from numpy.typing import NDArray
from onnxruntime import InferenceSession, SessionOptions

from triptych.errors import BundleError
from triptych.system.runtime.files import WEIGHTS
from triptych.system.runtime.wire import weight_locations
from triptych.system.runtime.wiring import Stage

Array = NDArray[Any]
_FATAL = 4
_JOINS_BIAS = "MatMulAddFusion"
_FOLDER_KEY = "session.model_external_initializers_file_folder_path"


@final
class Session:
    """One graph, loaded.  Its weights may come from the bundle's weight file only.  Raises BundleError."""

    def __init__(self, name: str, graph: bytes, folder: str, stage: Stage, threads: int) -> None:
        if outside := weight_locations(graph) - {os.path.basename(WEIGHTS)}:
            raise BundleError(f"graph {name!r} reads weights from {sorted(outside)}; only {WEIGHTS} is allowed")
        self.name = name
        self._inputs, self._outputs = stage.inputs.keys(), [*stage.outputs]
        try:
            session = start_session(graph, stage.facts.get("precision"), threads, folder)
        except Exception as error:
            raise BundleError(f"graph {name!r} does not load: {error}") from error
        _compare(name, "inputs", [node.name for node in session.get_inputs()], list(stage.inputs))
        _compare(name, "outputs", [node.name for node in session.get_outputs()], list(stage.outputs))
        self._run = session.run

    def __call__(self, feed: Mapping[str, Array]) -> list[Array]:
        """Outputs in the order of the manifest.  feed: at least the inputs.  Raises BundleError."""
        if feed.keys() != self._inputs:
            feed = {key: feed[key] for key in self._inputs}
        try:
            outputs: list[Array] = self._run(self._outputs, feed)
        except Exception as error:
            raise BundleError(f"graph {self.name!r} failed: {error}") from error
        return outputs


def start_session(graph: bytes, precision: object, threads: int, folder: str = "") -> InferenceSession:
    """Load a graph the way that suits the grid it computes on.

    precision: of its network; folder: the bundle that holds its weights, where they lie outside
    """
    options = SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _FATAL
    if folder:
        options.add_session_config_entry(_FOLDER_KEY, os.path.join(folder, os.path.dirname(WEIGHTS)))
    if precision == "int8_weights":  # integers are how they are stored, not how they multiply
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    apart = [_JOINS_BIAS] if precision == "int8" else None
    return InferenceSession(graph, options, ["CPUExecutionProvider"], disabled_optimizers=apart)


def _compare(name: str, side: str, found: list[str], promised: list[str]) -> None:
    if sorted(found) != sorted(promised):
        raise BundleError(f"graph {name!r} has the {side} {found}, its manifest says {promised}")
