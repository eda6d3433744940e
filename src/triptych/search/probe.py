"""Quick measurements during a search, in turns with the reference so that a busy machine misleads less."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import torch
from numpy.typing import NDArray

from triptych.data.collate import collate
from triptych.data.dataset import Split
from triptych.model.multimodal import Multimodal, example_batch
from triptych.system.bundle.graphs import export_fused
from triptych.system.bundle.weights import share_weights, strip_notes
from triptych.system.runtime.session import start_session
from triptych.tokens import Batch

_EXAMPLES, _LOOK = 8, 256
_CALL_S = 40e-6  # call and colder caches; fitted by hand to four bundles on one machine, a guess elsewhere
_STAGES_BYTES = 20_000  # manifest, and what a stage's file holds besides its weights, beyond the fused graph's own


@dataclass(frozen=True)
class Probe:
    """p50_s: median seconds of one prediction; size_bytes: the bundle's estimated bytes."""

    p50_s: float
    size_bytes: int


Run = Callable[[dict[str, NDArray[Any]]], object]


@final
class Prober:
    """Times fused graphs in this process; the reference network in PyTorch takes turns with every candidate.

    Seconds are those of the reference, measured once, times the candidate's ratio to it.
    """

    def __init__(self, reference: Multimodal, rows: Split, *, reference_p50_s: float, threads: int = 1) -> None:
        self._threads, self._reference_p50_s = threads, reference_p50_s
        self._reference = reference
        self._examples = _complete(rows.with_schema(reference.schema))

    def __call__(self, model: Multimodal) -> Probe:
        """Export and time one candidate."""
        graph = export_fused(model.cpu())
        p50_s = self._reference_p50_s * self.ratio(graph, model) + _CALL_S
        return Probe(p50_s, bundle_bytes(graph, model))

    def ratio(self, graph: bytes, model: Multimodal, *, rounds: int = 12) -> float:
        """Median over rounds of a graph's seconds by the reference's, each the median of a few examples in a row."""
        session = start_session(graph, model.config.precision, self._threads)
        names = [node.name for node in session.get_inputs()]
        before = torch.get_num_threads()
        torch.set_num_threads(self._threads)
        try:
            found = [self._round(lambda x: session.run(None, {name: x[name] for name in names})) for _ in range(rounds)]
        finally:
            torch.set_num_threads(before)
        return statistics.median(found[1:])

    def _round(self, candidate: Run) -> float:
        with torch.inference_mode():
            theirs = [_seconds(self._ask_reference, inputs) for inputs in self._examples]
            ours = [_seconds(candidate, inputs) for inputs in self._examples]
        return statistics.median(ours) / statistics.median(theirs)

    def _ask_reference(self, inputs: dict[str, NDArray[Any]]) -> object:
        return self._reference(Batch({name: torch.from_numpy(value) for name, value in inputs.items()}))


def _seconds(run: Run, inputs: dict[str, NDArray[Any]]) -> float:
    start = time.perf_counter()
    run(inputs)
    return time.perf_counter() - start


def _complete(rows: Split) -> list[dict[str, NDArray[Any]]]:
    """A few raw inputs that lack no modality; made ones where every row looked at lacks one."""
    found: list[dict[str, NDArray[Any]]] = []
    for row in range(min(_LOOK, len(rows))):
        example = rows.example(row)
        if all(value is not None for value in example.values()):
            found.append(collate([example], rows.schema)[0])
        if len(found) == _EXAMPLES:
            break
    return found or [{name: value.numpy() for name, value in example_batch(rows.schema).inputs.items()}]


def bundle_bytes(graph: bytes, model: Multimodal) -> int:
    """Estimate of a bundle's size from its fused graph: weights once, structure twice, tokenizers and manifest."""
    shared, weights = share_weights({"fused": strip_notes(graph)})
    tokenizers = sum(len(modality.tokenizer.encode()) for modality in model.schema.modalities)
    return len(weights) + 2 * len(shared["fused"]) + tokenizers + _STAGES_BYTES
