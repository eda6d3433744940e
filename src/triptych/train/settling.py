"""Settle a gate: what each choice is worth to each row, fitted to losses that were really seen.

While a network and its gate learn together, a step shows two choices of a row, by weights that still move.  Once the
weights rest, many choices can be seen for the same rows.  Less the mean of its row, and in units of their mean size,
the losses are what worths are fitted to, by least squares: first together with what the gate reads of the tokens, then
anew and longer, from what it reads by then.  Both from summaries with noise: there are few rows, and the network knows
them better than any it will meet.  Whatever budget is set afterwards, choices are then ranked by what they were seen to
change.

Losses alone let a gate read more of a modality that is a little noisy, since noise averages out over tokens; but
compute is to follow information.  So while worths are fitted anew, rows are shown with ever more noise in one modality
(`triptych.train.noise.Ladder`), and what more of its tokens are worth has to fall by a little from rung to rung; with
it falls, at whatever price, the number that is read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

import torch
from torch import Generator, Tensor

from triptych.errors import TrainingError
from triptych.model.gates import Gate
from triptych.model.gates.gate import OVER_CAP, Look
from triptych.tokens import Batch, Tokens

if TYPE_CHECKING:
    from triptych.model.multimodal import Multimodal
    from triptych.train.allotment import Allotment
    from triptych.train.noise import Ladder

CHOICES = 64  # seen of each row
_FARTHEST = 5.0  # units that a loss may lie off its row's mean: a few rows that went badly wrong say enough with that


@dataclass(frozen=True)
class Descent:
    """How to fit.  noise: spreads of a summary's numbers that are added at random, so that rows which look alike are
    worth alike
    """

    steps: int
    lr: float
    decay: float
    noise: float


READING = Descent(steps=300, lr=2e-3, decay=0.1, noise=0.5)
WEIGHING = Descent(steps=600, lr=3e-3, decay=1.0, noise=1.0)
_ROWS = 256  # of a step that weighs; one that reads takes a batch
_FALL = 0.1  # units of a loss by which more tokens are to be worth less once a modality is nothing but noise
_FIRMNESS = 30.0  # of that, against the losses that were seen


@dataclass(frozen=True)
class Seen:
    """Losses of some choices of a batch.

    starts: stem tokens of the modalities that are there;  choice: (rows, seen) int64;  loss: (rows, seen), NaN where a
    row may not choose that, as it lacks the modality
    """

    starts: Mapping[str, Tokens]
    choice: Tensor
    loss: Tensor


@dataclass(frozen=True)
class Worths:
    """What the gate is to say.

    choice: (rows, seen) int64;  target: (rows, seen), means of zero;  counts: (rows, seen) bool, where there is one
    """

    choice: Tensor
    target: Tensor
    counts: Tensor

    @classmethod
    def of(cls, choice: Tensor, loss: Tensor) -> Self:
        """In units of the mean difference from a row's mean."""
        target, counts = -_less_mean(loss), ~loss.isnan()
        target = (target / target[counts].abs().mean().clamp(min=1e-6)).clamp(-_FARTHEST, _FARTHEST)
        return cls(choice, target, counts)

    def take(self, rows: Tensor) -> Self:
        """Some rows.  rows: (some,) int64"""
        return replace(self, choice=self.choice[rows], target=self.target[rows], counts=self.counts[rows])

    def left(self, worth: Tensor) -> Tensor:
        """Mean square of what is left of the targets.  worth: (rows, choices) → ()"""
        told = _less_mean(worth.gather(1, self.choice).masked_fill(~self.counts, torch.nan))
        return (told - self.target)[self.counts].square().mean()


@dataclass(frozen=True)
class Rungs:
    """Summaries of a `Ladder`.

    place: of its modality among the gate's;  strength: (rungs,);  summaries: (rungs, rows, modalities, width)
    """

    place: int
    strength: Tensor
    summaries: Tensor

    def risen(self, gate: Gate, noise: Tensor) -> Tensor:
        """Mean square of how far more tokens' worth rises with noise, or falls by less than it is to.

        noise: (rows, modalities, width), added to all rungs → ()
        """
        rungs, rows = self.summaries.shape[:2]
        gain = gate.gains((self.summaries + noise).flatten(0, 1), self.place).view(rungs, rows, -1)
        least = _FALL * self.strength.diff().view(-1, 1, 1)
        return (gain.diff(dim=0) + least).clamp(min=0).square().mean()


def settle(
    model: Multimodal,
    batches: Iterable[Batch],
    objective: Allotment,
    *,
    noisier: Iterable[Ladder] = (),
    seed: int = 0,
) -> float:
    """Fit the worths of a network's gate; nothing else of it changes.  Returns the share of variance that they tell.

    batches: with targets; the gate learns to tell apart what is in them, so noise must be among them to be told.  The
             stem tokens of all of them are held in memory
    objective: whose losses are compared
    noisier: rows in which one modality is to be worth less and less; their summaries are held in memory
    Raises TrainingError without a gate or rows.
    """
    if model.gate is None:
        raise TrainingError("this network has no gate to settle")
    generator, training = torch.Generator().manual_seed(seed), model.training
    model.eval()
    seen = [see(model, batch, objective, generator) for batch in batches]
    if not seen:
        raise TrainingError("a gate settles on rows, and there are none")
    told = _fit(model, model.gate, seen, noisier, generator)
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
    starts = {n: model.begin(n, raw, batch.present.get(n)) for n, raw in batch.inputs.items()}
    looks = {n: gate.look(n, start) for n, start in starts.items()}
    allowed = gate.scores(gate.summaries(looks)) > OVER_CAP / 2
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
    return Seen(starts, chosen.expand(len(batch), -1), torch.stack(losses, dim=1))


def _fit(model: Multimodal, gate: Gate, seen: Sequence[Seen], noisier: Iterable[Ladder], generator: Generator) -> float:
    worths = Worths.of(torch.cat([s.choice for s in seen]), torch.cat([s.loss for s in seen]))
    parts = torch.split(torch.arange(len(worths.choice), device=worths.choice.device), [len(s.choice) for s in seen])

    def summaries(place: int) -> Tensor:
        return gate.summaries({name: gate.look(name, start) for name, start in seen[place].starts.items()})

    def batch() -> tuple[Tensor, Worths]:
        place = int(torch.randint(len(seen), (), generator=generator))
        return summaries(place), worths.take(parts[place])

    def all_of_them() -> Tensor:
        with torch.no_grad():
            return torch.cat([summaries(place) for place in range(len(seen))])

    gate.adjust_(all_of_them())
    _descend(gate, READING, batch, [], generator)
    read = all_of_them()
    gate.adjust_(read)

    def rows() -> tuple[Tensor, Worths]:
        some = torch.randint(len(read), (min(_ROWS, len(read)),), generator=generator).to(read.device)
        return read[some], worths.take(some)

    _descend(gate, WEIGHING, rows, [_climb(model, gate, ladder) for ladder in noisier], generator)
    with torch.no_grad():
        known = worths.target[worths.counts].square().mean().clamp(min=1e-12)
        return (1 - worths.left(gate.worth(read)) / known).item()


@torch.no_grad()
def _climb(model: Multimodal, gate: Gate, ladder: Ladder) -> Rungs:
    """Other modalities are the same on every rung, and are looked at once."""

    def look(name: str, batch: Batch) -> Look:
        return gate.look(name, model.begin(name, batch.inputs[name], batch.present.get(name)))

    rungs = [rung.only(*model.schema.names) for rung in ladder.rungs]
    looks = {name: look(name, rungs[0]) for name in rungs[0].inputs}
    summaries = [gate.summaries({**looks, ladder.name: look(ladder.name, rung)}) for rung in rungs]
    return Rungs(gate.names.index(ladder.name), ladder.strength.to(summaries[0].device), torch.stack(summaries))


def _descend(
    gate: Gate,
    how: Descent,
    draw: Callable[[], tuple[Tensor, Worths]],
    noisier: Sequence[Rungs],
    generator: Generator,
) -> None:
    """Fit what the summaries depend on.  draw: summaries of some rows, and what they are worth"""
    optimizer = torch.optim.AdamW(gate.parameters(), lr=how.lr, weight_decay=how.decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, how.steps)
    with torch.enable_grad():
        for _ in range(how.steps):
            summaries, worths = draw()
            spread = how.noise * summaries.detach().std(dim=0, correction=0)
            loss = worths.left(gate.worth(summaries + _random(summaries, spread, generator)))
            if noisier:
                rungs = noisier[int(torch.randint(len(noisier), (), generator=generator))]
                loss = loss + _FIRMNESS * rungs.risen(gate, _random(rungs.summaries[0], spread, generator))
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()


def _random(like: Tensor, spread: Tensor, generator: Generator) -> Tensor:
    return torch.randn(like.shape, generator=generator).to(like.device) * spread


def _less_mean(x: Tensor) -> Tensor:
    return x - x.nanmean(dim=1, keepdim=True)
