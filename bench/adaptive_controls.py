"""What adaptive allotment is compared to: chance, and a cascade that stops when it is sure."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from triptych.data.dataset import Dataset, Split
from triptych.data.loader import batches
from triptych.measure.quality import quality
from triptych.model import Multimodal
from triptych.model.gates import Gate
from triptych.system.bundle.gated import gate_of

ROWS = 256


@torch.inference_mode()
def spent(model: Multimodal, rows: Split) -> dict[str, Any]:
    """Quality, mean cost, and how the gate dealt with the rows: choices, shares and skips by modality."""
    gate, outputs, numbers = gate_of(model), [], []
    for batch in batches(rows, batch_size=ROWS, seed=0, shuffle=False):
        looks = model.look_all(batch)
        chosen = gate.scores(gate.summaries(looks)).argmax(dim=1)
        outputs.append(model.decide(model.encode_kept(looks, gate.keep[chosen])))
        numbers.append(chosen)
    return {"quality": judged(outputs, rows), **dealt(gate, torch.cat(numbers))}


def judged(outputs: list[Tensor], rows: Split) -> float:
    return quality(torch.cat(outputs).double().numpy(), np.asarray(rows.targets), rows.schema)


def dealt(gate: Gate, chosen: Tensor) -> dict[str, Any]:
    """chosen: (rows,) numbers of choices"""
    keep = gate.keep[chosen]
    skipped = (keep == 0).float()
    return {
        "cost": gate.cost[chosen].mean().item(),
        "choices": chosen.bincount(minlength=len(gate.keep)).tolist(),
        "shares": {n: (keep[:, i] / gate.counts[n][-1]).mean().item() for i, n in enumerate(gate.names)},
        "skipped": {n: skipped[:, i].mean().item() for i, n in enumerate(gate.names)},
        "one_alone": (skipped.sum(dim=1) == len(gate.names) - 1).float().mean().item(),
    }


@torch.inference_mode()
def dealt_at_random(adaptive: Multimodal, data: Dataset, seed: int) -> dict[str, Any]:
    """The same number of tokens for the same modalities as often, but not for the rows that need them."""
    gate, outputs, numbers = gate_of(adaptive), [], []
    often = torch.tensor(spent(adaptive, data.validation)["choices"], dtype=torch.float32)
    generator = torch.Generator().manual_seed(seed)
    for batch in batches(data.test, batch_size=ROWS, seed=0, shuffle=False):
        chosen = often.multinomial(len(batch), replacement=True, generator=generator)
        outputs.append(adaptive.decide(adaptive.encode_kept(adaptive.look_all(batch), gate.keep[chosen])))
        numbers.append(chosen)
    return {"quality": judged(outputs, data.test), **dealt(gate, torch.cat(numbers))}


def cascade(model: Multimodal, data: Dataset, cost: float) -> dict[str, Any] | None:
    """Cheapest modality first; the surest threshold that on validation costs no more.  None without classes."""
    if data.schema.task != "classification":
        return None
    flops = model.flops()
    order = sorted(data.schema.names, key=lambda name: flops[f"{name}.encode"])
    costs = np.cumsum([flops[f"{name}.encode"] for name in order]) / sum(flops.values())
    costs[-1] = 1.0
    stops = {split: answers(model, data[split], order) for split in ("validation", "test")}
    thresholds = np.linspace(0, 1, 101)
    affordable = [t for t in thresholds if stopped(stops["validation"], t, costs)[1] <= cost]
    threshold = max(affordable, default=0.0)
    outputs, spending = stopped(stops["test"], threshold, costs)
    return {
        "quality": quality(outputs, np.asarray(data.test.targets), data.schema),
        "cost": spending,
        "threshold": float(threshold),
        "order": order,
    }


@torch.inference_mode()
def answers(model: Multimodal, rows: Split, order: list[str]) -> list[NDArray[np.float64]]:
    """Logits after each modality: exits of all but the last, then the decision on all."""
    found: list[list[Tensor]] = [[] for _ in order]
    for batch in batches(rows, batch_size=ROWS, seed=0, shuffle=False):
        streams = model.encode_all(batch)
        for place, name in enumerate(order[:-1]):
            found[place].append(model.exit(name, streams[name]))
        found[-1].append(model.decide(streams))
    return [torch.cat(parts).double().numpy() for parts in found]


def stopped(
    logits: list[NDArray[np.float64]], threshold: float, costs: NDArray[np.float64]
) -> tuple[NDArray[np.float64], float]:
    """Each row's answer where it stops, and the mean cost."""
    outputs, spending = logits[-1].copy(), np.full(len(logits[-1]), costs[-1])
    for place in reversed(range(len(logits) - 1)):
        chances = np.exp(logits[place] - logits[place].max(axis=1, keepdims=True))
        sure = (chances / chances.sum(axis=1, keepdims=True)).max(axis=1) >= threshold
        outputs[sure], spending[sure] = logits[place][sure], costs[place]
    return outputs, float(spending.mean())
