"""What adaptive allotment is compared to: chance, and a cascade that stops when it is sure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from triptych.algorithm.tokens.adapt import gated
from triptych.data.dataset import Dataset, Split
from triptych.data.loader import batches
from triptych.measure.quality import quality
from triptych.model import Multimodal
from triptych.model.gates import Gate
from triptych.system.bundle.gated import gate_of
from triptych.tokens import Batch
from triptych.train.allotment import Allotment
from triptych.train.losses import soft_loss

if TYPE_CHECKING:
    from adaptive import Cell

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


@final
@dataclass(eq=False)
class DealtAtRandom:
    """Objective: the choices of another gate, as often as it made them, to whichever rows."""

    like: Allotment
    often: Tensor

    def __call__(self, model: Multimodal, batch: Batch) -> Tensor:
        own, answers = batch.only(*model.schema.names), self.like.answers(model.schema, batch)
        looks, gate = model.look_all(own), gate_of(model)
        chosen = self.often.multinomial(len(own), replacement=True)
        streams = model.encode_kept(looks, gate.keep[chosen])
        output = model.decide(streams)
        task = self.like.task.of(model, own, streams, output)
        if answers is None:
            return task
        return 0.5 * soft_loss(model.schema, output, answers, 2.0) + 0.5 * task


def random_run(cell: Cell, dense: Multimodal, adaptive: Multimodal) -> dict[str, Any]:
    """The same number of tokens for the same modalities as often, but not for the rows that need them."""
    found = spent(adaptive, cell.data.train)
    often = torch.tensor(found["choices"], dtype=torch.float32)
    start = gated(dense, adaptive.config.gate)  # type: ignore[arg-type]
    objective = DealtAtRandom(cell.objective(dense, 1.0), often)
    model = cell.model("random", lambda: cell.train(start, cell.args.seconds, objective))
    outputs, numbers, generator = [], [], torch.Generator().manual_seed(cell.seed)
    with torch.inference_mode():
        for batch in batches(cell.data.test, batch_size=ROWS, seed=0, shuffle=False):
            chosen = often.multinomial(len(batch), replacement=True, generator=generator)
            outputs.append(model.decide(model.encode_kept(model.look_all(batch), gate_of(model).keep[chosen])))
            numbers.append(chosen)
    return {"quality": judged(outputs, cell.data.test), **dealt(gate_of(adaptive), torch.cat(numbers))}


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
