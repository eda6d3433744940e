"""Fewer tokens: pure functions that score, keep and merge.  They know tokens and no model.

Shared by everything that has to choose among sequence items; hence beside `tokens`, below `model` and `algorithm`.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from triptych.tokens import Tokens

_PRIME = 2**31 - 1


def kept_count(tokens: int, fraction: float) -> int:
    """Tokens that stay: at least one, rounded up, in whole percents so that a symbolic count works."""
    return _divided_up(tokens * max(1, round(fraction * 100)), 100)


def _divided_up(count: int, by: int) -> int:
    """A quotient rounded up.  Not −(−count // by): exported graphs round towards zero."""
    return (count + by - 1) // by


def keep_best(tokens: Tokens, score: Tensor, keep: int) -> Tokens:
    """Keep the `keep` highest scored real tokens, in their original order.

    score: (batch, tokens), higher is kept
    """
    if tokens.mask is not None:
        score = score.masked_fill(~tokens.mask, -math.inf)
    return tokens.take(score.topk(keep, dim=1).indices.sort(dim=1).values)


def keep_counts(tokens: Tokens, score: Tensor, keep: Tensor) -> Tokens:
    """Keep of each row as many of its highest scored real tokens as `keep` says; rows that keep fewer are padded.

    score: (batch, tokens); keep: (batch,) int64.  The result is in the order of the scores, best first.
    """
    longest = max(1, min(int(keep.max()), tokens.x.shape[1]))
    kept = tokens.take(best_first(tokens, score)[:, :longest])
    return Tokens(kept.x, kept.real() & (torch.arange(longest, device=keep.device) < keep.unsqueeze(1)), kept.weight)


def best_first(tokens: Tokens, score: Tensor) -> Tensor:
    """Places of the tokens from the highest scored real one on, padding last: (batch, tokens) int64."""
    if tokens.mask is not None:
        score = score.masked_fill(~tokens.mask, -math.inf)
    return score.topk(score.shape[1], dim=1).indices


def spread(count: int) -> Tensor:
    """A score whose best n tokens lie evenly apart, for every n: (count,) in (0, 1].

    Places are ranked by their binary digits read backwards (van der Corput 1935).
    """
    digits = max(1, (count - 1).bit_length())
    backwards = torch.tensor([int(f"{place:0{digits}b}"[::-1], 2) for place in range(count)])
    scores: Tensor = 1 - backwards.to(torch.float32) / 2**digits
    return scores


def random_score(tokens: Tokens) -> Tensor:
    """A fixed pseudo-random score per position, the control of every scorer: (batch, tokens) in [0, 1).

    In whole numbers, so that every runtime draws the same.
    """
    position = torch.arange(1, tokens.x.shape[1] + 1, device=tokens.x.device)
    mixed = position * 48271 % _PRIME
    mixed = (mixed * mixed + position) % _PRIME
    return (mixed * mixed % _PRIME).to(torch.float32).expand(tokens.x.shape[0], -1) / _PRIME


def stride(tokens: Tokens, keep: int) -> Tokens:
    """Every n-th token, evenly spread: the positional control."""
    count = tokens.x.shape[1]
    index = torch.arange(keep, device=tokens.x.device) * count // keep
    return tokens.take(index.expand(tokens.x.shape[0], -1))


def max_min_diversity(tokens: Tokens, likeness: Tensor, keep: int) -> Tokens:
    """Greedy max–min distance selection (Alvar et al. 2025, DivPrune).

    likeness: (batch, tokens, dim), distance is 1 − cosine.  Seed: the token whose second smallest distance to any
    token (itself included) is largest; then always the token whose nearest chosen one is farthest.
    """
    unit = functional.normalize(likeness, dim=-1)
    distance = 1 - unit @ unit.transpose(1, 2)
    real = tokens.real()
    far = distance.masked_fill(~real.unsqueeze(1), 4.0)
    second = far.topk(min(2, distance.shape[1]), dim=-1, largest=False).values[..., -1]
    first = second.masked_fill(~real, -1.0).argmax(dim=1, keepdim=True)
    chosen = [first]
    nearest = _row(distance, first).masked_fill(~real, -1.0)
    nearest = nearest.scatter(1, first, -2.0)
    for _ in range(keep - 1):
        best = nearest.argmax(dim=1, keepdim=True)
        chosen.append(best)
        nearest = torch.minimum(nearest, _row(distance, best)).scatter(1, best, -2.0)
    return tokens.take(torch.cat(chosen, dim=1).sort(dim=1).values)


def _row(matrix: Tensor, index: Tensor) -> Tensor:
    return matrix.gather(1, index.unsqueeze(-1).expand(-1, -1, matrix.shape[2])).squeeze(1)


def pool(tokens: Tokens, keep: int) -> Tokens:
    """Weighted mean of neighbouring runs of equal length; weights add up.

    May keep fewer when the runs do not divide.
    """
    count = tokens.x.shape[1]
    run = _divided_up(count, keep)
    groups = _divided_up(count, run)
    extra = groups * run - count
    weight = torch.unflatten(functional.pad(tokens.weights(), (0, extra)), 1, (groups, run))
    x = torch.unflatten(functional.pad(tokens.x, (0, 0, 0, extra)), 1, (groups, run))
    total = weight.sum(dim=2)
    share = weight / total.clamp(min=1e-6).unsqueeze(-1)
    mask = None if tokens.mask is None else total > 0
    return Tokens((x * share.unsqueeze(-1)).sum(dim=2), mask, total)


def bipartite_merge(tokens: Tokens, likeness: Tensor, keep: int) -> Tokens:
    """Merge the most alike pairs of an alternating split (Bolya et al. 2023, ToMe); at most half of the tokens go.

    likeness: (batch, tokens, dim), compared by cosine.  Every even token proposes its best odd one; the best proposals
    are merged by weighted mean and weights add up.  Padding merges first and weighs nothing; a place that a real token
    merges into is real.  The result is in no order.
    """
    merged = tokens.x.shape[1] - keep
    if merged == 0:
        return tokens
    unit = functional.normalize(likeness, dim=-1)
    real, weight = tokens.real(), tokens.weights()
    alike = unit[:, ::2] @ unit[:, 1::2].transpose(1, 2)
    alike = alike.masked_fill(~real[:, None, 1::2], -2.0).masked_fill(~real[:, ::2, None], 2.0)
    best, partner = alike.max(dim=-1)
    order = best.argsort(dim=1, descending=True)
    gone, stay = order[:, :merged], order[:, merged:].sort(dim=1).values
    even = Tokens(tokens.x[:, ::2] * weight[:, ::2, None], real[:, ::2], weight[:, ::2])
    moved, kept = even.take(gone), even.take(stay)
    target = partner.gather(1, gone)
    odd_weight = weight[:, 1::2].scatter_add(1, target, moved.weights())
    wide = target.unsqueeze(-1).expand(-1, -1, tokens.x.shape[-1])
    odd_x = (tokens.x[:, 1::2] * weight[:, 1::2, None]).scatter_add(1, wide, moved.x)
    total = torch.cat([kept.weights(), odd_weight], dim=1)
    x = torch.cat([kept.x, odd_x], dim=1) / total.clamp(min=1e-6).unsqueeze(-1)
    return Tokens(x, None if tokens.mask is None else total > 0, total)


Received = Callable[[], Tensor]


def reduce(tokens: Tokens, method: str, fraction: float, *, received: Received, keys: Received) -> Tokens:
    """Keep or merge down to `fraction` of the tokens.

    received() → (batch, tokens) mean attention that a token gets; keys() → (batch, tokens, dim) what likeness compares.
    """
    keep = kept_count(tokens.x.shape[1], fraction)
    return METHODS[method](tokens, keep, received, keys)


METHODS: dict[str, Callable[[Tokens, int, Received, Received], Tokens]] = {
    "random": lambda tokens, keep, _received, _keys: keep_best(tokens, random_score(tokens), keep),
    "stride": lambda tokens, keep, _received, _keys: stride(tokens, keep),
    "class_attention": lambda tokens, keep, received, _keys: keep_best(tokens, received(), keep),
    "max_min_diversity": lambda tokens, keep, _received, keys: max_min_diversity(tokens, keys(), keep),
    "pool": lambda tokens, keep, _received, _keys: pool(tokens, keep),
    "bipartite": lambda tokens, keep, _received, keys: bipartite_merge(tokens, keys(), keep),
}
