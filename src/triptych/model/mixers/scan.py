"""Linear recurrences over all tokens at once, without a loop over them.  O(tokens) time and memory."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.fx.experimental.symbolic_shapes import statically_known_true
from torch.nn import functional

CHUNK = 16


def linear_scan(decay: Tensor, added: Tensor, before: Tensor | None = None) -> Tensor:
    """h_t = decay_t · h_{t−1} + added_t from h_0 = `before`, for every t.

    All chunks of `CHUNK` tokens advance together, token by token, from nothing; the states at their ends obey a
    recurrence of the same form, `CHUNK` times shorter, and say what each chunk starts from.

    decay, added: (batch, tokens, features), before: (batch, features), None for zero → (batch, tokens, features)
    """
    count, features = decay.shape[1:]
    length = count if isinstance(count, int) and count < CHUNK else CHUNK
    single = statically_known_true(count <= length)  # a symbolic length has a largest value, so this ends
    chunks = 1 if single else (count + length - 1) // length  # not −(−a // b): exported graphs round towards zero
    decays, addeds = (_places(x, chunks, length) for x in (decay, added))
    through, inside = [decays[0]], [addeds[0]]
    if single and before is not None:
        inside[0] = _advanced(before.unsqueeze(1), decays[0], addeds[0])
    for place in range(1, length):
        inside.append(_advanced(inside[-1], decays[place], addeds[place]))
        if not single:
            through.append(decays[place] * through[-1])
    states = torch.cat(inside, dim=-1).reshape(-1, chunks, length, features)
    if not single:
        ends = linear_scan(through[-1], inside[-1], before)
        starts = _shifted(ends, before).unsqueeze(2)
        states = _advanced(starts, torch.cat(through, dim=-1).reshape(-1, chunks, length, features), states)
    return states.flatten(1, 2)[:, :count]


def _places(x: Tensor, chunks: int, length: int) -> tuple[Tensor, ...]:
    """Every chunk's first token, second, and so on: (batch, tokens, features) → (batch, chunks, features) each"""
    count, features = x.shape[1:]
    if not statically_known_true(count == chunks * length):
        x = functional.pad(x, (0, 0, 0, chunks * length - count))
    return x.reshape(-1, chunks, length * features).chunk(length, dim=-1)


def _shifted(ends: Tensor, before: Tensor | None) -> Tensor:
    """What every chunk starts from: `before`, then all ends but the last."""
    if before is None:
        return functional.pad(ends, (0, 0, 1, 0))[:, : ends.shape[1]]
    return torch.cat([before.unsqueeze(1), ends[:, :-1]], dim=1)


def _advanced(state: Tensor, decay: Tensor, added: Tensor) -> Tensor:
    """The state one step later.  The fused form is quicker here, and more nodes in an exported graph."""
    return added + decay * state if torch.compiler.is_exporting() else torch.addcmul(added, decay, state)
