"""A network to a bundle folder: graphs, golden examples, facts and card, verified before it appears."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from triptych.data.collate import collate
from triptych.errors import BundleError
from triptych.measure.ledger import modalities
from triptych.measure.report import Report
from triptych.model.adapt import merged
from triptych.model.cost import count_choices_
from triptych.model.experts import observed_routers
from triptych.system.bundle.card import model_card
from triptych.system.bundle.gated import gate_of
from triptych.system.bundle.graphs import export_graphs
from triptych.system.bundle.weights import weight_bytes
from triptych.system.bundle.write import write_bundle
from triptych.system.runtime import Point
from triptych.tokens import Batch

if TYPE_CHECKING:
    from triptych.data.dataset import Dataset
    from triptych.model.multimodal import Multimodal

GOLDEN_ROWS = 16
PACKAGES = ("triptych", "torch", "onnx", "onnxscript", "onnxruntime", "numpy")
TOLERANCE = {"float32": 1e-3, "int8_weights": 1e-3, "int8": 5e-2}  # rounding ties on the activation grid add up


def export(
    model: Multimodal,
    folder: str | Path,
    data: Dataset,
    *,
    points: Sequence[Point] | None = None,
    reports: Mapping[str, Report] | None = None,
    facts: Mapping[str, Any] | None = None,
    graphs: Mapping[str, bytes] | None = None,
    tolerance: float | None = None,
) -> Path:
    """Write a network as a bundle that runs without PyTorch.

    data:      where the golden examples come from: the first rows of its validation split
    points:    operating points; None means one, with everything present
    reports:   measurements to keep in the manifest and the card, the original's first
    facts:     what else is known of the bundle's making, such as dataset, seed or commit
    graphs:    what `export_graphs` gave for this network, where it is at hand
    tolerance: largest difference between network and runtime, times the larger of 1 and the row's largest number

    Raises ParityError, and leaves what was at `folder` as it was, when the runtime's answers differ by more.
    """
    model = merged(model.cpu().eval())
    rows, outputs = golden_rows(model, data)
    made = {
        "packages": {name: version(name) for name in PACKAGES},
        "dataset": data.name,
        "fingerprint": data.fingerprint,
        **(facts or {}),
    }
    used = (Point("full", model.schema.names, "fused"),) if points is None else tuple(points)
    steps = [{"technique": step} for step in model.config.recipe]
    card = model_card(model.schema, reports=reports, points=used, recipe=steps, provenance=made)
    written = export_graphs(model) if graphs is None else graphs
    stages = stage_facts(model)
    batches = (Batch({name: torch.from_numpy(value) for name, value in row.items()}) for row in rows)
    if routers := observed_routers(model, batches):
        stages["fused"]["routers"] = routers
    return write_bundle(
        Path(folder),
        schema=model.schema,
        graphs=written,
        golden_inputs=rows,
        golden_outputs=outputs,
        stages=_with_bytes(stages, written),
        points=used,
        recipe=list(model.config.recipe),
        reports={name: _brief(report) for name, report in (reports or {}).items()},
        provenance=made,
        card=card,
        tolerance=TOLERANCE[model.config.precision] if tolerance is None else tolerance,
    )


def golden_rows(model: Multimodal, data: Dataset) -> tuple[list[dict[str, NDArray[Any]]], list[NDArray[np.float32]]]:
    """Raw rows with a batch axis of one, and the network's answer to each."""
    split = next((s for s in (data.splits.get("validation"), data.train) if s is not None and len(s)), None)
    if split is None:
        raise BundleError("a bundle needs golden examples, but the dataset has no rows to take them from")
    split = split.with_schema(model.schema)
    rows, outputs = [], []
    for index in range(min(GOLDEN_ROWS, len(split))):
        inputs, _ = collate([split.example(index)], model.schema)
        with torch.inference_mode():
            answer = model(Batch({name: torch.from_numpy(value) for name, value in inputs.items()}))
        rows.append(inputs)
        outputs.append(answer[0].numpy())
    return rows, outputs


def stage_facts(model: Multimodal) -> dict[str, dict[str, Any]]:
    """Per graph: operations of one full example, parameters, and on which grid it computes."""
    flops, params = model.flops(), model.parameters_by_part()
    shared = params.pop("shared", 0)  # in the graph of every encoder, and once in the fused one
    inside = {name: count + shared * name.endswith(".encode") for name, count in params.items()}
    facts: dict[str, dict[str, Any]] = {
        name: {"flops": flops.get(name), "params": count} for name, count in inside.items()
    }
    facts["fused"] = {"flops": sum(flops.values()), "params": sum(params[name] for name in flops) + shared}
    if model.gate is not None:
        facts["gate"] |= {"choices": choice_facts(model)}
        facts |= {f"{name}.{part}": {} for name in model.encoders for part in ("stem", "blocks")}
    return {name: {**fact, "precision": model.config.precision} for name, fact in facts.items()}


def _with_bytes(facts: Mapping[str, Mapping[str, Any]], graphs: Mapping[str, bytes]) -> dict[str, dict[str, Any]]:
    """Facts of every graph that there are facts of, and the bytes of the weights that it uses."""
    return {name: {**fact, "weight_bytes": weight_bytes(graphs[name])} for name, fact in facts.items()}


def choice_facts(model: Multimodal) -> list[list[int]]:
    """Every choice of a network's gate: tokens kept of each modality, and the operations that are then executed."""
    counted, gate = copy.deepcopy(model), gate_of(model)
    whole = count_choices_(counted)
    operations = (gate_of(counted).cost.double() * whole).round().to(torch.int64)
    return torch.cat([gate.keep, operations.unsqueeze(1)], dim=1).tolist()


def _brief(report: Report) -> dict[str, Any]:
    """A report without its raw samples, which would weigh more than the network; of its parts the modalities."""
    record = report.to_dict()
    told = record.pop("parts", {})
    parts = {name: told[name] for name in (*modalities(report), "decide") if name in told}
    for part in (record, *parts.values()):
        part.pop("samples_s", None)
        part.pop("environment", None)
    return {**record, "parts": parts} if parts else record
