"""Linear recurrences over all tokens at once, without a loop over them.  O(tokens) time and memory."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.fx.experimental.symbolic_shapes import statically_known_true
from torch.nn import functional

CHUNK = 16


def linear_scan(decay: Tensor, added: Tensor) -> Tensor:
    """h_t = decay_t · h_{t−1} + added_t from h_0 = 0, for every t.

    Doubling (Hillis & Steele 1986) inside chunks of fixed size; the states at the ends of the chunks obey a recurrence
    of the same form, `CHUNK` times shorter.

    decay, added: (batch, tokens, features) → (batch, tokens, features)
    """
    count = decay.shape[1]
    if statically_known_true(count <= CHUNK):  # a symbolic length has a largest value, so this ends
        return _doubled(decay, added)[1]
    chunks = (count + CHUNK - 1) // CHUNK  # not −(−count // CHUNK): exported graphs round towards zero
    decay, added = (_chunked(x, chunks) for x in (decay, added))
    through, inside = _doubled(decay, added)
    ends = linear_scan(through[:, :, -1], inside[:, :, -1])
    before = functional.pad(ends, (0, 0, 1, 0))[:, :chunks].unsqueeze(2)
    return (inside + through * before).flatten(1, 2)[:, :count]


def _chunked(x: Tensor, chunks: int) -> Tensor:
    """x: (batch, tokens, features) → (batch, chunks, CHUNK, features)"""
    x = functional.pad(x, (0, 0, 0, chunks * CHUNK - x.shape[1]))
    return torch.unflatten(x, 1, (chunks, CHUNK))


def _doubled(decay: Tensor, added: Tensor) -> tuple[Tensor, Tensor]:
    """Product of the decays so far and the state from nothing, for up to `CHUNK` steps along the last axis but one."""
    count = decay.shape[-2]
    step = 1
    while step < CHUNK and not statically_known_true(step >= count):
        added = added + decay * _later(added, step, 0.0)
        decay = decay * _later(decay, step, 1.0)
        step *= 2
    return decay, added


def _later(x: Tensor, step: int, fill: float) -> Tensor:
    """What stood `step` places before: (..., tokens, features)."""
    return functional.pad(x, (0, 0, step, 0), value=fill)[..., : x.shape[-2], :]
