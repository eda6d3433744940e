"""What each choice of a gate costs, counted on the tokens that are then really there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial

import torch

from triptych.errors import ModelError
from triptych.model.multimodal import Multimodal, example_batch
from triptych.model.operations import counted
from triptych.select import keep_best
from triptych.tokens import Batch, Tokens

DEAREST = 1000.0  # price of the whole network's operations, in units of a choice's worth
_HALVINGS, _MARGIN = 40, 1e-3
Runs = Mapping[tuple[str, int], tuple[Tokens, int]]  # by modality and count: what its blocks give, and operations


@torch.no_grad()
def count_choices_(model: Multimodal) -> int:
    """Set the cost of every choice of a network's gate, as a share of the same network without a gate.

    Counted are the stems, the gate itself, the blocks that run and the decision, for one full row.  Returns the
    operations of the network without a gate.  Raises ModelError where there is no gate.
    """
    if model.gate is None:
        raise ModelError("this network has no gate whose choices could be counted")
    gate, training = model.gate, model.training
    model.eval()
    batch = example_batch(model.schema).to(gate.cost.device)
    looks, looking = counted(lambda: model.look_all(batch))
    _, choosing = counted(lambda: gate.choose(gate.summaries(looks)))
    stems = [counted(partial(model.encoders[n].get_submodule("stem"), raw))[1] for n, raw in batch.inputs.items()]
    runs = {
        (name, count): counted(partial(model.go_on, name, keep_best(look.tokens, look.score, count or 1)))
        for name, look in looks.items()
        for count in {*gate.keep[:, gate.names.index(name)].tolist(), look.tokens.x.shape[1]}
    }
    found = [_operations(model, runs, dict(zip(gate.names, kept, strict=True))) for kept in gate.keep.tolist()]
    full = _operations(model, runs, {name: look.tokens.x.shape[1] for name, look in looks.items()})
    model.train(training)
    whole = sum(stems) + full
    gate.cost.copy_((torch.tensor(found) + looking + choosing) / whole)
    return whole


def _operations(model: Multimodal, runs: Runs, kept: Mapping[str, int]) -> int:
    """Of the blocks and the decision for one choice; a modality that is left out is one token that is not real."""
    streams = {name: _present(runs[name, count][0], count) for name, count in kept.items()}
    _, deciding = counted(lambda: model.decide(streams))
    return deciding + sum(runs[name, count][1] for name, count in kept.items() if count)


def _present(tokens: Tokens, count: int) -> Tokens:
    return tokens if count else Tokens(tokens.x[:, :1], torch.zeros_like(tokens.real()[:, :1]), tokens.weight)


@torch.no_grad()
def fit_price_(model: Multimodal, batches: Iterable[Batch], budget: float) -> float:
    """Set about the lowest price at which the rows cost at most `budget` on average.  Returns what they then cost.

    budget: share of the operations of the network without a gate.  Raises ModelError where no price is high enough.
    """
    if model.gate is None:
        raise ModelError("this network has no gate that could pay a price")
    gate = model.gate
    gate.price.zero_()
    worth = torch.cat([gate.scores(gate.summaries(model.look_all(batch))) for batch in batches])

    def spent(price: float) -> float:
        return gate.cost[(worth - price * gate.cost).argmax(dim=1)].mean().item()

    low, high = 0.0, DEAREST
    if spent(high) > budget:
        raise ModelError(f"the cheapest choices cost {spent(high):.3f} on average, more than the budget of {budget}")
    if spent(low) <= budget:
        return spent(low)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if spent(middle) <= budget else (middle, high)
    gate.price.fill_(high * (1 + _MARGIN) + _MARGIN)  # at `high` itself some row is undecided to the last digit
    return spent(gate.price.item())
