"""Settle a gate: what each choice is worth to each row, fitted to losses that were really seen.

While a network and its gate learn together, a step shows two choices of a row, by weights that still move.  Once the
weights rest, many choices can be seen for the same rows.  Less the mean of its row, and in units of their mean size,
the losses are what worths are fitted to, by least squares, from summaries with noise: there are few rows, and the
network knows them better than any it will meet.  Whatever budget is set afterwards, choices are then ranked by what
they were seen to change.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Generator, Tensor

from triptych.errors import TrainingError
from triptych.model.gates import Gate
from triptych.model.gates.gate import OVER_CAP
from triptych.tokens import Batch

if TYPE_CHECKING:
    from triptych.model.multimodal import Multimodal
    from triptych.train.allotment import Allotment

CHOICES = 64  # seen of each row
_STEPS, _ROWS, _LR, _DECAY = 600, 256, 3e-3, 1.0
_NOISE = 1.0  # spreads of a summary's numbers that are added to them at random: rows that look alike are worth alike
_FARTHEST = 5.0  # units that a loss may lie off its row's mean: a few rows that went badly wrong say enough with that


@dataclass(frozen=True)
class Seen:
    """Losses of some choices of many rows.

    summaries: (rows, modalities, width);  choice: (rows, seen) int64;  loss: (rows, seen), NaN where a row may not
    choose that, as it lacks the modality
    """

    summaries: Tensor
    choice: Tensor
    loss: Tensor


def settle(model: Multimodal, batches: Iterable[Batch], objective: Allotment, *, seed: int = 0) -> float:
    """Fit the worths of a network's gate; nothing else of it changes.  Returns the share of variance that they tell.

    batches: with targets; the gate learns to tell apart what is in them, so noise must be among them to be told
    objective: whose losses are compared
    Raises TrainingError without a gate or rows.
    """
    if model.gate is None:
        raise TrainingError("this network has no gate to settle")
    generator, training = torch.Generator().manual_seed(seed), model.training
    model.eval()
    seen = [see(model, batch, objective, generator) for batch in batches]
    if not seen:
        raise TrainingError("a gate settles on rows, and there are none")
    told = _fit(model.gate, Seen(*(torch.cat([getattr(s, f) for s in seen]) for f in Seen.__annotations__)), generator)
    model.train(training)
    return told


@torch.no_grad()
def see(model: Multimodal, batch: Batch, objective: Allotment, generator: Generator) -> Seen:
    """Run up to `CHOICES` choices, the same for all rows of a batch, so that none is padded for another.

    A modality's blocks run once for each number of its tokens; only what decides runs for every choice.
    """
    gate = model.gate
    if gate is None:
        raise TrainingError("this network has no gate to settle")
    answers, batch = objective.answers(model.schema, batch), batch.only(*model.schema.names)
    looks = model.look_all(batch)
    summaries = gate.summaries(looks)
    allowed = gate.scores(summaries) > OVER_CAP / 2
    some = torch.nonzero(gate.keep.sum(dim=1) > 0).squeeze(1)
    chosen = some[torch.randperm(len(some), generator=generator)[:CHOICES].to(some.device)]
    counts, losses = {n: gate.keep[chosen, gate.names.index(n)] for n in looks}, []
    encoded = {
        (name, count.item()): model.encode_some(name, look, count.expand(len(batch)))
        for name, look in looks.items()
        for count in torch.unique(counts[name])
    }
    for place, number in enumerate(chosen.tolist()):
        output = model.decide({name: encoded[name, counts[name][place].item()] for name in looks})
        loss = objective.by_row(model.schema, output, batch, answers)
        losses.append(loss.masked_fill(~allowed[:, number], torch.nan))
    return Seen(summaries, chosen.expand(len(batch), -1), torch.stack(losses, dim=1))


def _fit(gate: Gate, seen: Seen, generator: Generator) -> float:
    target, counts = -_less_mean(seen.loss), ~seen.loss.isnan()
    target = (target / target[counts].abs().mean().clamp(min=1e-6)).clamp(-_FARTHEST, _FARTHEST)
    gate.adjust_(seen.summaries)
    spread = _NOISE * seen.summaries.std(dim=0, correction=0)
    optimizer = torch.optim.AdamW(gate.parameters(), lr=_LR, weight_decay=_DECAY)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, _STEPS)
    with torch.enable_grad():
        for _ in range(_STEPS):
            rows = torch.randint(len(target), (min(_ROWS, len(target)),), generator=generator).to(target.device)
            noise = torch.randn(len(rows), *spread.shape, generator=generator).to(target.device) * spread
            worth = gate.worth(seen.summaries[rows] + noise)
            optimizer.zero_grad()
            torch.autograd.backward(_error(worth, seen.choice[rows], target[rows], counts[rows]))
            optimizer.step()
            schedule.step()
    with torch.no_grad():
        left = _error(gate.worth(seen.summaries), seen.choice, target, counts)
        return (1 - left / target[counts].square().mean().clamp(min=1e-12)).item()


def _error(worth: Tensor, choice: Tensor, target: Tensor, counts: Tensor) -> Tensor:
    """Mean square of what worths leave.  worth: (rows, choices); the others: (rows, seen)"""
    worth = _less_mean(worth.gather(1, choice).masked_fill(~counts, torch.nan))
    return (worth - target)[counts].square().mean()


def _less_mean(x: Tensor) -> Tensor:
    return x - x.nanmean(dim=1, keepdim=True)
