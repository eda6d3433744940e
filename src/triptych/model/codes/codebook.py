"""Vector quantization (van den Oord et al. 2017, VQ-VAE): a vector becomes the number of its nearest codeword."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor
from torch.nn import functional

from triptych.errors import ModelError
from triptych.model.auxiliary import Auxiliary

_DEAD = 0.1  # of an even share of the uses: what is used less gets another place
_UNUSED = 1e-6


@final
class Codebook(Auxiliary):
    """`entries` codewords of width `dim`, each the running mean of the vectors that it stands for.

    The paper's appendix A.1: N ← γ N + (1 − γ) n and m ← γ m + (1 − γ) Σ x over the vectors of a batch that chose the
    word, which is m / N.  So words need no gradient; what leads to x gets the straight-through one, and the auxiliary
    loss β · mean (x − word)² keeps x near its words.

    decay:      γ, between 0 and 1
    commitment: β, the paper's 0.25
    """

    def __init__(self, entries: int, dim: int, *, decay: float = 0.99, commitment: float = 0.25) -> None:
        super().__init__()
        if entries < 1 or dim < 1:
            raise ModelError(f"a codebook needs at least one word of one feature, got {entries} of {dim}")
        if not 0 <= decay < 1:
            raise ModelError(f"the decay of a codebook must be in [0, 1), got {decay}")
        self.decay, self.commitment = decay, commitment
        self.register_buffer("words", torch.randn(entries, dim))
        self.register_buffer("uses", torch.zeros(entries))
        self.register_buffer("sums", torch.zeros(entries, dim))
        self.words: Tensor
        self.uses: Tensor
        self.sums: Tensor

    def encode(self, x: Tensor) -> Tensor:
        """Number of the nearest word by Euclidean distance.  x: (..., dim) → (...) int64

        The largest x·w − |w|²/2 is the smallest |x − w|².
        """
        return (x @ self.words.t() - self.words.square().sum(dim=1) / 2).argmax(dim=-1)

    def decode(self, codes: Tensor) -> Tensor:
        """The words.  codes: (...) int64 → (..., dim)"""
        return functional.embedding(codes, self.words)

    def forward(self, x: Tensor) -> Tensor:
        """The nearest words; while training with a straight-through gradient, and the words move.

        x: (..., dim) → (..., dim)
        """
        codes = self.encode(x)
        words = self.decode(codes)
        if not self.training:
            return words
        self.auxiliary = self.commitment * (x - words).square().mean()
        self._move(x.detach().flatten(0, -2), codes.flatten())
        return x + (words - x).detach()

    @torch.no_grad()
    def _move(self, x: Tensor, codes: Tensor) -> None:
        """x: (vectors, dim), codes: (vectors,)"""
        counts = torch.bincount(codes, minlength=len(self.words)).to(x.dtype)
        self.uses = self.uses.lerp(counts, 1 - self.decay)
        self.sums = self.sums.lerp(torch.zeros_like(self.sums).index_add(0, codes, x), 1 - self.decay)
        used = self.uses.unsqueeze(1)
        self.words = torch.where(used > _UNUSED, self.sums / used.clamp(min=_UNUSED), self.words)

    @torch.no_grad()
    def revive(self, x: Tensor, generator: torch.Generator) -> int:
        """Put words that hardly anything chooses onto random vectors, as all are before the first use; how many were.

        x: (vectors, dim); where it holds fewer vectors than there are such words, the others wait
        """
        dead = (self.uses <= _DEAD * self.uses.mean()).nonzero().squeeze(1)[: len(x)]
        chosen = x[torch.randperm(len(x), generator=generator)[: len(dead)].to(x.device)]
        share = self.uses.mean().clamp(min=_UNUSED)
        self.words, self.uses, self.sums = self.words.clone(), self.uses.clone(), self.sums.clone()
        self.words[dead], self.uses[dead], self.sums[dead] = chosen, share, chosen * share
        return len(dead)
