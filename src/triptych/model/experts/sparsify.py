"""Fewer pairs of a token and an expert, without training: the third step of S3 (specialise, select, sparsify).

A way is a function of the routing and its config that says which of the chosen pairs are worked on.  The others add
nothing and are not computed.  A way is one line in `WAYS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from triptych.model.config import RoutesConfig
from triptych.model.experts.routing import Routing

_PRIME = 65_521


def sparsified(routing: Routing, routes: RoutesConfig, rows: int) -> Routing:
    """The same pairs, of which fewer are worked on.  rows: of the batch"""
    return routing.only(WAYS[routes.way](routing, routes, rows))


def pair_scores(routing: Routing) -> Tensor:
    """The router's score of every pair, whatever its gate is: (pairs,)."""
    experts = routing.scores.shape[1]
    return routing.scores.flatten().index_select(0, routing.token * experts + routing.expert)


def by_batch(routing: Routing, routes: RoutesConfig, rows: int) -> Tensor:  # noqa: ARG001
    """The best `fraction` of all working pairs of the batch, as the paper has it: (pairs,) bool.

    A row's result then depends on its batch.  At batch one it is `by_row`.
    """
    scores, working = pair_scores(routing), routing.working()
    return best(scores.unsqueeze(0), working.unsqueeze(0), routes.fraction).squeeze(0)


def by_row(routing: Routing, routes: RoutesConfig, rows: int) -> Tensor:
    """The best `fraction` of each row's working pairs: (pairs,) bool.

    Pairs have to lie row by row, equally many for each, as routers that choose by token give them.
    """
    scores, working = pair_scores(routing), routing.working()
    return best(scores.reshape(rows, -1), working.reshape(rows, -1), routes.fraction).flatten()


def by_score(routing: Routing, routes: RoutesConfig, rows: int) -> Tensor:  # noqa: ARG001
    """Every pair that scores at least `least`, a number set beforehand: (pairs,) bool.  A token may lose all."""
    enough: Tensor = pair_scores(routing) >= routes.least
    return enough


def at_random(routing: Routing, routes: RoutesConfig, rows: int) -> Tensor:
    """As many of each row's pairs as `by_row` keeps, but whichever: the control.  The same for every runtime."""
    working = routing.working().reshape(rows, -1)
    place = torch.arange(1, working.shape[1] + 1, device=working.device)
    mixed = place * 48_271 % _PRIME
    mixed = (mixed * mixed + place) % _PRIME
    scores = (mixed * mixed % _PRIME).to(torch.float32)
    return best(scores.expand(working.shape), working, routes.fraction).flatten()


def best(scores: Tensor, working: Tensor, fraction: float) -> Tensor:
    """The best `fraction` of each group's working pairs, rounded up, in whole percents: (groups, pairs) bool.

    Whoever scores like the last one stays too, so that no order among equals is needed.
    scores: (groups, pairs), not negative; working: (groups, pairs) bool
    """
    scores = torch.where(working, scores, -torch.ones_like(scores))
    percent = max(1, round(100 * fraction))
    keep = (working.sum(dim=1, keepdim=True) * percent + 99) // 100
    ordered = scores.sort(dim=1, descending=True).values
    least = ordered.gather(1, (keep - 1).clamp(min=0))
    return working & (scores >= least)


Way = Callable[[Routing, RoutesConfig, int], Tensor]
WAYS: Mapping[str, Way] = {"batch": by_batch, "random": at_random, "row": by_row, "score": by_score}
