"""What every way of balancing modalities is, and what they have in common: answers of single modalities."""

from __future__ import annotations

from abc import ABC
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Generator, Tensor, nn

from triptych.model.auxiliary import Auxiliary
from triptych.tokens import Batch, Tokens
from triptych.train.losses import TaskLoss

if TYPE_CHECKING:
    from triptych.model.multimodal import Multimodal


class Balance(nn.Module, ABC):
    """Has a say in how much each modality learns, so that one that is easy to learn does not silence the others.

    Everything it remembers is a buffer, so that a checkpoint holds it and a resumed run goes on with it.

    names:    modalities of the network, in the order of its schema
    strength: in units of the method's usual one
    watches:  whether it wants to see the validation rows after each validation
    """

    watches: ClassVar[bool] = False

    def __init__(self, model: Multimodal, strength: float) -> None:
        super().__init__()
        self.names, self.strength = model.schema.names, strength

    def loss(
        self,
        task: TaskLoss,
        model: Multimodal,
        *,
        batch: Batch,
        streams: Mapping[str, Tokens],
        output: Tensor,
        loss: Tensor,
    ) -> Tensor:
        """The loss to minimise in place of `loss`, the task's, after a forward pass that was made: scalar."""
        del task, model, batch, streams, output
        return loss

    def agree_(self, mean: Callable[[Tensor], Tensor]) -> None:
        """Take the mean over all processes of what the last batch told, where there are several."""

    def modulate_(self, model: Multimodal, generator: Generator) -> None:
        """Change the gradients of a backward pass.  generator: the same in every process"""

    def validated_(self, model: Multimodal, batches: Iterable[Batch]) -> None:
        """Learn from the validation rows, where it watches them."""


class Modulation(Balance):
    """Scales each encoder's gradient by what the last batch told of the modality.

    tally: (2, modalities) sum of a score over the rows that hold the modality, and their number
    """

    def __init__(self, model: Multimodal, strength: float) -> None:
        super().__init__(model, strength)
        self.register_buffer("tally", torch.zeros(2, len(self.names)))
        self.tally: Tensor

    def agree_(self, mean: Callable[[Tensor], Tensor]) -> None:
        """Take the mean over all processes."""
        self.tally.copy_(mean(self.tally))

    def means(self) -> Tensor:
        """Mean score of each modality: (modalities,), NaN where the batch had no row of it."""
        return self.tally[0] / self.tally[1]

    def note_(self, model: Multimodal, batch: Batch, answers: Mapping[str, Tensor]) -> None:
        """Tally minus the loss of each row, the log of the chance that the right class was given."""
        self.tally.zero_()
        for number, name in enumerate(self.names):
            if name in answers:
                cost, weight = row_losses(model, batch, name, answers[name])
                self.tally[:, number] = torch.stack([(self.score(cost) * weight).sum(), weight.sum()])

    def score(self, cost: Tensor) -> Tensor:
        """What a row's loss counts: (rows,) → (rows,)"""
        return -cost


def row_losses(model: Multimodal, batch: Batch, name: str, answer: Tensor) -> tuple[Tensor, Tensor]:
    """The loss without smoothing of each row, and one where its target is known and the modality is there.

    answer: (batch, outputs) → (batch,) both
    """
    if batch.target is None:
        return answer.new_zeros(len(answer)), answer.new_zeros(len(answer))
    cost, known = TaskLoss().each(model.schema, answer, batch.target)
    here = batch.present.get(name)
    return cost, known.float() if here is None else known * here.float()


def alone(model: Multimodal, streams: Mapping[str, Tokens]) -> dict[str, Tensor]:
    """Answer from each modality alone: its exit's where it has one, else the fusion's on nothing but it.

    → (batch, outputs) by name
    """
    return {n: model.exit(n, t) if n in model.exits else model.decide({n: t}) for n, t in streams.items()}


@contextmanager
def apart(model: nn.Module) -> Iterator[None]:
    """Forward passes inside leave no trace in the losses that parts of the network add."""
    parts = [part for part in model.modules() if isinstance(part, Auxiliary)]
    before = [part.auxiliary for part in parts]
    try:
        yield
    finally:
        for part, loss in zip(parts, before, strict=True):
            part.auxiliary = loss


def encoder_parameters(model: Multimodal, name: str) -> list[nn.Parameter]:
    """What only one modality trains and that has a gradient."""
    parts = [model.encoders[name], *([model.connectors[name]] if name in model.connectors else [])]
    return [p for part in parts for p in part.parameters() if p.grad is not None]


def others(values: Tensor) -> Tensor:
    """Mean of the other modalities' known values, for each: (modalities,), NaN where no other is known."""
    known = values.isfinite()
    filled = values.nan_to_num() * known
    return (filled.sum() - filled) / (known.sum() - known.long())


def dims_of(model: Multimodal) -> dict[str, int]:
    """Width of the tokens that each modality hands on."""
    config = model.config
    return {n: config.shared.dim if config.shared else config.encoders[n].width for n in model.schema.names}
