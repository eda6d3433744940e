"""onnxruntime sessions, set up for one prediction at a time in little memory.

Measured with onnxruntime 1.32 on two transformers of 0.1 M and 2.2 M parameters, batch 1, one thread, fresh processes,
three rounds each. Memory is what the larger one's process peaks at above numpy and onnxruntime (46 MB, of which
onnxruntime is 21); about 10 MB of it are onnxruntime's own code:

  weights      external data that onnxruntime maps tensor by tensor: 23 MB, loads in 21 ms; embedded in the graph 25 to
               28 MB, 31 ms; handed over in memory 24 to 28 MB, and held twice while loading. So external, in a file
               that was hashed, from a graph that was scanned.
  arena        off: 23 to 31 MB from one process to the next, as malloc fragments, and no faster. On.
  pattern      memory pattern off: 1 MB less, but 7 % slower on a prediction of 0.1 ms. On.
  prepacking   off: up to 2 MB less, but 13 to 25 % slower. On.
  optimisation basic instead of all: up to 60 % slower. All.
  spinning     no effect on one thread; off, two threads answer a small graph half as fast. On.
  run          4.7 µs for the smallest graph; fixed bindings 3.3, fresh bindings 6.6, OrtValues 36. So `run`: it is
               within 2 % of the best for a prediction of 0.1 ms.
"""

from __future__ import annotations

import os
from typing import Any

from numpy.typing import NDArray
from onnxruntime import InferenceSession, SessionOptions

from triptych.errors import BundleError
from triptych.system.runtime.files import WEIGHTS
from triptych.system.runtime.wire import weight_locations
from triptych.system.runtime.wiring import Stage

Array = NDArray[Any]
_FATAL = 4
_FOLDER_KEY = "session.model_external_initializers_file_folder_path"


def open_session(name: str, graph: bytes, folder: str, stage: Stage, threads: int) -> InferenceSession:
    """Load one graph; its weights may come from the bundle's weight file only.  Raises BundleError."""
    if outside := weight_locations(graph) - {os.path.basename(WEIGHTS)}:
        raise BundleError(f"graph {name!r} reads weights from {sorted(outside)}; only {WEIGHTS} is allowed")
    options = SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _FATAL
    options.add_session_config_entry(_FOLDER_KEY, os.path.join(folder, os.path.dirname(WEIGHTS)))
    if stage.facts.get("precision") == "int8_weights":  # integers are how they are stored, not how they multiply
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    try:
        session = InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise BundleError(f"graph {name!r} does not load: {error}") from error
    _compare(name, "inputs", [node.name for node in session.get_inputs()], list(stage.inputs))
    _compare(name, "outputs", [node.name for node in session.get_outputs()], list(stage.outputs))
    return session


def run_session(name: str, session: InferenceSession, stage: Stage, feed: dict[str, Array]) -> list[Array]:
    """Outputs in the order of the manifest.  Raises BundleError where the graph fails."""
    try:
        outputs: list[Array] = session.run([*stage.outputs], feed)
    except Exception as error:
        raise BundleError(f"graph {name!r} failed: {error}") from error
    return outputs


def _compare(name: str, side: str, found: list[str], promised: list[str]) -> None:
    if sorted(found) != sorted(promised):
        raise BundleError(f"graph {name!r} has the {side} {found}, its manifest says {promised}")
