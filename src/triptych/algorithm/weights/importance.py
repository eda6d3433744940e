"""Which units matter: a score per unit of every group, higher stays."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from triptych.algorithm.technique import Context
from triptych.algorithm.weights.trace import Cut, Group
from triptych.errors import RecipeError
from triptych.model.dense import GridLayer
from triptych.model.multimodal import Multimodal
from triptych.tokens import Batch, Tokens
from triptych.train.losses import plain_loss

Importance = Literal["activation", "magnitude", "random", "taylor"]
NAMES: tuple[Importance, ...] = get_args(Importance)
CALIBRATED: frozenset[Importance] = frozenset({"activation", "taylor"})


def scores(
    model: Multimodal, groups: Sequence[Group], importance: Importance, context: Context, *, batches: int
) -> list[Tensor]:
    """One score per unit, (count,) for every group.

    magnitude:  norm of all weights of the unit
    activation: |W| · ‖X‖ over the weights that read the unit (Sun et al. 2024, Wanda, summed per unit)
    taylor:     |Σ g · w| over the weights that read the unit, what the loss changes to first order without it
                (Molchanov et al. 2019), mean over batches
    random:     the control

    Raises RecipeError when calibration data or its targets are missing.
    """
    found = _SCORES[importance](model, groups, context, batches)
    return [score.to(torch.float64) for score in found]


def _random(_model: Multimodal, groups: Sequence[Group], context: Context, _batches: int) -> list[Tensor]:
    return [torch.rand(g.count, generator=context.generator(number)) for number, g in enumerate(groups)]


def _magnitude(model: Multimodal, groups: Sequence[Group], _context: Context, _batches: int) -> list[Tensor]:
    tensors = model.state_dict()
    return [sum_cuts(g, g.cuts, {c.name: tensors[c.name].square() for c in g.cuts}).sqrt() for g in groups]


def _activation(model: Multimodal, groups: Sequence[Group], context: Context, batches: int) -> list[Tensor]:
    norms = input_norms(model, context.calibration(batches))
    tensors = model.state_dict()
    found = []
    for group in groups:
        readers = _readers(model, group)
        products = {cut.name: tensors[cut.name].abs() * _norm_of(norms, cut.name) for cut in readers}
        found.append(sum_cuts(group, readers, products))
    return found


def _taylor(model: Multimodal, groups: Sequence[Group], context: Context, batches: int) -> list[Tensor]:
    readers = [_readers(model, group) for group in groups]
    losses = [
        [sum_cuts(group, cuts, change).abs() for group, cuts in zip(groups, readers, strict=True)]
        for change in _loss_changes(model, context.calibration(batches))
    ]
    return [torch.stack(scores).mean(dim=0) for scores in zip(*losses, strict=True)]


_SCORES: dict[str, Callable[[Multimodal, Sequence[Group], Context, int], list[Tensor]]] = {
    "activation": _activation,
    "magnitude": _magnitude,
    "random": _random,
    "taylor": _taylor,
}


def sum_cuts(group: Group, cuts: Sequence[Cut], values: dict[str, Tensor]) -> Tensor:
    """Sum per unit of what `values`, shaped like the tensors, hold at some of its places: (count,)."""
    total = torch.zeros(group.count)
    units = torch.arange(group.count)
    for cut in cuts:
        others = [axis for axis in range(values[cut.name].ndim) if axis != cut.axis]
        value = values[cut.name].sum(dim=others).cpu() if others else values[cut.name].cpu()
        total += value[cut.index(units, group.count)].sum(dim=1)
    return total


def _readers(model: Multimodal, group: Group) -> list[Cut]:
    return [cut for cut in group.cuts if _reads(model.get_submodule(cut.name.rpartition(".")[0]), cut)]


def _reads(layer: nn.Module, cut: Cut) -> bool:
    """Whether a cut is along the inputs of a layer, the last axis of its weights."""
    return isinstance(layer, GridLayer) and cut.name.endswith(".weight") and cut.axis == layer.weight.ndim - 1


def _norm_of(norms: dict[str, Tensor], name: str) -> Tensor:
    return norms.get(name.removesuffix(".weight"), torch.ones(()))


def input_norms(model: Multimodal, batches: Sequence[Batch]) -> dict[str, Tensor]:
    """Euclidean norm of every input of every dense layer over some batches: (inputs,) by layer name."""
    squares: dict[str, Tensor] = {}

    def listen(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            squares[name] = squares.get(name, torch.zeros(())) + inputs[0].detach().flatten(0, -2).square().sum(dim=0)

        return hook

    layers = [(name, layer) for name, layer in model.named_modules() if isinstance(layer, GridLayer)]
    handles = [layer.register_forward_pre_hook(listen(name)) for name, layer in layers]
    try:
        run_all(model, batches)
    finally:
        for handle in handles:
            handle.remove()
    return {name: square.sqrt() for name, square in squares.items()}


def run_all(model: Multimodal, batches: Sequence[Batch]) -> None:
    """Run every stage on some batches, exits included."""
    for batch in batches:
        run_whole(model, batch)


@torch.no_grad()
def run_whole(model: Multimodal, batch: Batch) -> dict[str, Tokens]:
    """Run every stage on one batch, exits included; returns what the encoders gave."""
    streams = model.encode_all(batch.to(next(model.parameters()).device))
    model.decide(streams)
    for name in model.exits.keys() & streams.keys():
        model.exit(name, streams[name])
    return streams


def _loss_changes(model: Multimodal, batches: Sequence[Batch]) -> Iterator[dict[str, Tensor]]:
    """Gradient times weight of the task's loss, per batch, by tensor name."""
    if any(batch.target is None for batch in batches):
        raise RecipeError("importance 'taylor' needs calibration data with targets")
    worked = copy.deepcopy(model).eval().requires_grad_()
    device = next(worked.parameters()).device
    for batch in batches:
        worked.zero_grad()
        torch.autograd.backward(plain_loss(worked.schema)(worked, batch.to(device)))
        yield {n: (p.detach() * p.grad if p.grad is not None else p.detach() * 0) for n, p in worked.named_parameters()}
