"""What routers did: how much each expert has to do, how sure the router is, and whether it has collapsed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from triptych.model.experts.losses import entropy
from triptych.model.experts.routers import Router
from triptych.model.experts.routing import Routing
from triptych.tokens import Batch


@dataclass(frozen=True)
class RouterStatistics:
    """What one router did.

    load:     share of the working pairs that each expert has; zeros where nothing works
    entropy:  mean entropy of a token's scores, over the logarithm of the experts: 0 is sure, 1 undecided
    collapse: 1 − (exp(entropy of the load) − 1) / (experts − 1): 0 where all work alike, 1 where one does everything
    pairs:    working pairs per real token
    """

    load: tuple[float, ...]
    entropy: float
    collapse: float
    pairs: float

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {**asdict(self), "load": list(self.load)}


def router_statistics(routings: Sequence[Routing]) -> RouterStatistics:
    """Statistics of what one router chose, over all batches together.  routings: at least one, of the same experts"""
    experts = routings[0].scores.shape[1]
    worked = torch.cat([routing.expert[routing.working()] for routing in routings])
    scores = torch.cat([routing.scores for routing in routings]).double()
    count = torch.bincount(worked, minlength=experts).double()
    load = count / count.sum().clamp(min=1)
    real = float(scores.sum().clamp(min=1e-6))
    used = float(entropy(load).exp())
    return RouterStatistics(
        load=tuple(load.tolist()),
        entropy=float(entropy(scores).sum()) / real / math.log(experts) if experts > 1 else 0.0,
        collapse=min(1.0, max(0.0, 1 - (used - 1) / (experts - 1))) if experts > 1 else 0.0,
        pairs=len(worked) / real,
    )


@torch.inference_mode()
def observed_routers(network: nn.Module, batches: Iterable[Batch]) -> dict[str, dict[str, Any]] | None:
    """Statistics of every router over some batches, as plain JSON values by part; None in a network without any."""
    with watched_routers(network) as seen:
        for batch in batches:
            network(batch)
    return {name: router_statistics(found).to_dict() for name, found in seen.items()} or None


@contextmanager
def watched_routers(network: nn.Module) -> Iterator[dict[str, list[Routing]]]:
    """What every router inside a network chooses inside the block, by the name of the part that it is in."""
    seen: dict[str, list[Routing]] = {}

    def listen(name: str) -> Any:
        def hook(_router: nn.Module, _inputs: Any, routing: Routing) -> None:
            seen.setdefault(name, []).append(routing)

        return hook

    routers = [(name, part) for name, part in network.named_modules() if isinstance(part, Router)]
    handles = [part.register_forward_hook(listen(name.removesuffix(".router"))) for name, part in routers]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()
