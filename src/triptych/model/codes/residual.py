"""Residual quantization (Zeghidour et al. 2021, SoundStream): every level encodes what the levels before left over."""

from __future__ import annotations

from collections.abc import Iterator
from typing import final

import torch
from torch import Tensor, nn

from triptych.errors import ModelError
from triptych.model.codes.codebook import Codebook


@final
class ResidualCodebooks(nn.Module):
    """A vector is the sum of one word per level: r₀ = x, rₗ₊₁ = rₗ − word(rₗ).

    entries^levels sums in levels · entries words.  The first levels alone are a coarser code of the same vectors.
    """

    def __init__(self, levels: int, entries: int, dim: int, *, decay: float = 0.99, commitment: float = 0.25) -> None:
        super().__init__()
        if levels < 1:
            raise ModelError(f"residual codebooks need at least one level, got {levels}")
        self.dim = dim
        self.books = nn.ModuleList(Codebook(entries, dim, decay=decay, commitment=commitment) for _ in range(levels))

    def encode(self, x: Tensor) -> Tensor:
        """x: (..., dim) → (..., levels) int64"""
        codes = []
        for book in self._books():
            codes.append(book.encode(x))
            x = x - book.decode(codes[-1])
        return torch.stack(codes, dim=-1)

    def decode(self, codes: Tensor) -> Tensor:
        """The sum of the words.  codes: (..., levels) int64, or the first levels of it → (..., dim)"""
        if codes.shape[-1] > len(self.books):
            raise ModelError(f"got codes of {codes.shape[-1]} levels, but there are {len(self.books)} codebooks")
        words = [book.decode(part) for book, part in zip(self._books(), codes.unbind(dim=-1), strict=False)]
        return torch.stack(words).sum(dim=0)

    def forward(self, x: Tensor) -> Tensor:
        """What the codes stand for; while training with a straight-through gradient, and the words move.

        x: (..., dim) → (..., dim)
        """
        rest, total = x, torch.zeros_like(x)
        for book in self._books():
            words = book(rest).detach()
            rest, total = rest - words, total + words
        return x + (total - x).detach() if self.training else total

    @torch.no_grad()
    def errors(self, x: Tensor) -> Tensor:
        """Mean squared length of what is left over, before the first level and after each: (levels + 1,)."""
        codes = self.encode(x)
        sums = [torch.zeros_like(x), *(self.decode(codes[..., :n]) for n in range(1, len(self.books) + 1))]
        return torch.stack([(x - total).square().sum(dim=-1).mean() for total in sums])

    @torch.no_grad()
    def revive(self, x: Tensor, generator: torch.Generator) -> int:
        """Put hardly used words of every level onto what is left there of random vectors; how many were.

        x: (vectors, dim)
        """
        count = 0
        for book in self._books():
            count += book.revive(x, generator)
            x = x - book.decode(book.encode(x))
        return count

    def _books(self) -> Iterator[Codebook]:
        for book in self.books:
            if isinstance(book, Codebook):
                yield book
