"""Long sequences in pieces that stay in the processor's cache."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from triptych.tokens import Tokens

PIECE = 2**17  # values that one step of the work writes: half a megabyte
_FEWEST = 16  # tokens of a piece


def pieces(tokens: Tokens, features: int) -> Iterator[Tokens]:
    """A sequence piece by piece, in order, for work that writes `features` values per token.

    Without it, every step of a long sequence's work goes through fresh memory, which costs more than the work does.
    The whole sequence is one piece in a graph that is exported, which must take any length, and on an accelerator.
    """
    rows, count = tokens.x.shape[:2]
    if torch.compiler.is_exporting() or tokens.x.device.type != "cpu":
        yield tokens
        return
    length = max(_FEWEST, PIECE // max(1, rows * features) // _FEWEST * _FEWEST)
    for start in range(0, count, length):
        yield _between(tokens, start, start + length)


def _between(tokens: Tokens, start: int, end: int) -> Tokens:
    def some(x: Tensor | None) -> Tensor | None:
        return None if x is None else x[:, start:end]

    return Tokens(tokens.x[:, start:end], some(tokens.mask), some(tokens.weight))


def joined(parts: list[Tensor]) -> Tensor:
    """What came of all pieces: (batch, tokens of a piece, dim) each → (batch, tokens, dim)"""
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


def summed(parts: list[Tensor]) -> Tensor:
    """The sum over all pieces, each of the same shape."""
    return parts[0] if len(parts) == 1 else torch.stack(parts).sum(dim=0)
