"""What every gate is: it looks at stem tokens and allots a budget of tokens to the modalities."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor, nn

from triptych.errors import ModelError
from triptych.model.config import GateConfig
from triptych.select import kept_count
from triptych.tokens import Tokens

MOST_CHOICES = 1024
OVER_CAP, EMPTY, ABSENT = -1e4, -1e5, -1e6  # each outweighs all that is less bad


@dataclass(frozen=True, slots=True)
class Look:
    """What a gate sees of one modality.

    tokens:  as they go on to the blocks
    score:   (batch, tokens), higher is kept first
    summary: (batch, width) of the whole; its last feature is 1 where the row has the modality and 0 where not
    """

    tokens: Tokens
    score: Tensor
    summary: Tensor


class Gate(nn.Module, ABC):
    """Chooses for every row one combination of token counts, one count per modality.

    A choice may take nothing from a modality that the row lacks, may not cost more than the config's cap and takes
    something from at least one modality; where all that cannot be had, the first two give way, in this order from the
    last: a row is always answered.

    counts: by modality, the numbers of tokens that may be kept
    keep:   (choices, modalities) int64, the combinations
    cost:   (choices,) what each costs, as a share of the whole network's operations; at first by tokens alone, see
            `triptych.model.cost`
    price:  (), what a share of the network's operations must be worth in units of a choice's score
    """

    keep: Tensor
    cost: Tensor
    price: Tensor
    uses: Tensor
    empty: Tensor

    @abstractmethod
    def __init__(self, dims: Mapping[str, int], tokens: Mapping[str, int], config: GateConfig) -> None:
        """dims, tokens: width and number of each modality's stem tokens"""
        super().__init__()
        self.config = config
        self.names = tuple(tokens)
        self.counts = {name: _counts(count, config.shares) for name, count in tokens.items()}
        keep = torch.tensor(list(_combinations(self.counts)), dtype=torch.int64)
        whole = torch.tensor([float(count) for count in tokens.values()])
        self.register_buffer("keep", keep, persistent=False)
        self.register_buffer("cost", (keep / whole).mean(dim=1))
        self.register_buffer("price", torch.zeros(()))
        self.register_buffer("uses", (keep > 0).to(torch.float32).t().contiguous(), persistent=False)
        self.register_buffer("empty", (keep == 0).all(dim=1).to(torch.float32) * EMPTY, persistent=False)

    @abstractmethod
    def look(self, name: str, tokens: Tokens) -> Look:
        """Take a cheap look at one modality.  tokens: what its stem gave, (batch, tokens, dim)"""

    @abstractmethod
    def worth(self, summaries: Tensor) -> Tensor:
        """How good each choice is, whatever it costs: (batch, choices).

        summaries: (batch, modalities, width), zeros for a modality that is missing
        """

    def adjust_(self, summaries: Tensor) -> None:
        """Get ready for worths to be fitted to many rows, which show what is usual; nothing unless overridden.

        summaries: (rows, modalities, width)
        """

    @property
    @abstractmethod
    def width(self) -> int:
        """Of a summary."""

    def scores(self, summaries: Tensor) -> Tensor:
        """Worth less price times cost, and far below anything else what a row may not choose: (batch, choices)."""
        lacks = 1 - summaries[:, :, -1]
        over = self.cost > (self.config.cap or math.inf)
        limits = self.empty + over * OVER_CAP - self.price * self.cost
        return self.worth(summaries) + limits + ABSENT * (lacks @ self.uses)

    def gains(self, summaries: Tensor, place: int) -> Tensor:
        """What each further count of a modality's tokens is worth, mean over the choices that keep some of another.

        place: of the modality among the gate's names;  summaries: as for `worth` → (batch, counts less one).  A gate of
        one modality may not keep nothing of it, and has one gain less.
        """
        worth, own = self.worth(summaries), self.keep[:, place]
        fair = own > 0 if len(self.names) == 1 else self.keep.sum(dim=1) > own
        chosen = [fair & (own == count) for count in self.counts[self.names[place]]]
        return torch.stack([worth[:, some].mean(dim=1) for some in chosen if some.any()], dim=1).diff(dim=1)

    def summaries(self, looks: Mapping[str, Look]) -> Tensor:
        """Side by side, zeros where a modality is missing: (batch, modalities, width)."""
        some = next(iter(looks.values())).summary
        return torch.stack([looks[n].summary if n in looks else torch.zeros_like(some) for n in self.names], dim=1)

    def choose(self, summaries: Tensor) -> Tensor:
        """Tokens that each row keeps of each modality: (batch, modalities) int64."""
        return self.keep.index_select(0, self.scores(summaries).argmax(dim=1))


def here(tokens: Tokens) -> Tensor:
    """1 where a row has any token, else 0: (batch, 1)."""
    if tokens.mask is None:
        return torch.ones_like(tokens.x[:, 0, :1])
    return tokens.some().to(tokens.x.dtype)


def _counts(tokens: int, shares: tuple[float, ...]) -> tuple[int, ...]:
    return tuple(sorted({kept_count(tokens, share) if share else 0 for share in shares}))


def _combinations(counts: Mapping[str, tuple[int, ...]]) -> list[tuple[int, ...]]:
    """All of them, and with them the empty one, for rows that have nothing at all."""
    found = list(product(*counts.values()))
    if len(found) > MOST_CHOICES:
        raise ModelError(
            f"{len(counts)} modalities of {len(max(counts.values(), key=len))} counts make {len(found)} choices, at "
            f"most {MOST_CHOICES} are weighed; give the gate fewer shares"
        )
    empty = (0,) * len(counts)
    return found if empty in found else [empty, *found]
