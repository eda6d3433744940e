"""Neighbouring tokens taken together: squares of an image's grid, runs of a sequence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor
from torch.nn import functional

from triptych.tokens import Tokens


@dataclass(frozen=True, slots=True)
class Regions:
    """Tokens by region, as a part of which each is in its place.

    x:      (batch, regions, parts, dim), zero where a part is not real
    mask:   (batch, regions, parts) bool; None means that all parts are real
    weight: (batch, regions, parts); None means one each
    whole:  whether every region holds a real part, since all that was given was real
    """

    x: Tensor
    mask: Tensor | None
    weight: Tensor | None
    whole: bool

    def one_each(self, x: Tensor) -> Tokens:
        """A token per region, real where a part is, as heavy as its parts.  x: (batch, regions, dim)"""
        weight = None if self.weight is None else self.weight.sum(dim=2)
        return Tokens(x, None if self.whole or self.mask is None else self.mask.any(dim=2), weight)

    def mean(self) -> Tensor:
        """Mean of every region's real parts, weighted: (batch, regions, dim); zero where there are none."""
        tokens = self.apart(self.x)
        return torch.unflatten(tokens.mean(), 0, self.x.shape[:2])

    def apart(self, x: Tensor) -> Tokens:
        """Every region as a sequence of its own: (batch · regions, parts, dim).  x: (batch, regions, parts, dim)"""
        mask, weight = (None if t is None else t.flatten(0, 1) for t in (self.mask, self.weight))
        return Tokens(x.flatten(0, 1), mask, weight)


@final
class Folding:
    """Cuts a grid of rows and columns into squares, and any other run of tokens into stretches.

    grid: as a stem's; side: tokens per side of a square, or of a stretch.  What is cut at an edge is filled up with
    parts that are not real.
    """

    def __init__(self, grid: tuple[int, ...], side: int) -> None:
        self.grid, self.side = (grid if len(grid) == 2 else ()), side
        self.parts = side * side if self.grid else side

    def __call__(self, tokens: Tokens) -> Regions:
        """tokens.x: (batch, tokens, dim)"""
        missing = self._missing(tokens.x.shape[1])
        full = all(isinstance(count, int) and count == 0 for count in missing)
        mask = None if tokens.mask is None and full else self._cut(tokens.real().unsqueeze(-1), missing).squeeze(-1)
        weight = None if tokens.weight is None else self._cut(tokens.weights().unsqueeze(-1), missing).squeeze(-1)
        x = self._cut(tokens.x, missing)
        x = x if mask is None else x.masked_fill(~mask.unsqueeze(-1), 0.0)
        return Regions(x, mask, weight, whole=tokens.mask is None)

    def _missing(self, count: int) -> tuple[int, ...]:
        """Tokens that lack to whole squares, below and on the right, or to whole stretches, at the end."""
        sides = self.grid or (count,)
        # in two steps, as a negative remainder differs between PyTorch and exported graphs
        return tuple((length + self.side - 1) // self.side * self.side - length for length in sides)

    def _cut(self, x: Tensor, missing: tuple[int, ...]) -> Tensor:
        """x: (batch, tokens, any) → (batch, regions, parts, any)"""
        if not self.grid:
            return torch.unflatten(_longer(x, (0, missing[0])), 1, (-1, self.side))
        x = torch.unflatten(x, 1, self.grid)
        x = _longer(x, (0, missing[1], 0, missing[0]))
        rows, columns = (length // self.side for length in x.shape[1:3])
        x = x.reshape(x.shape[0], rows, self.side, columns, self.side, x.shape[3])
        return x.transpose(2, 3).reshape(x.shape[0], rows * columns, self.parts, x.shape[5])


def _longer(x: Tensor, after: tuple[int, ...]) -> Tensor:
    """Pad the axes before the last one, the later ones first, with zeros or False."""
    if all(isinstance(count, int) and count == 0 for count in after):
        return x
    return functional.pad(x, (0, 0, *after))
