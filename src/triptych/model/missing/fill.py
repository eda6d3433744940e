"""What every fill is: one token in the place of each modality that a row lacks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from triptych.tokens import Tokens


class Fill(nn.Module, ABC):
    """Gives the fusion a token of every modality in every row, so that it never sees one missing.

    Without a fill the fusion deals with what is missing in its own way.
    dims: width of each modality's tokens
    """

    @abstractmethod
    def __init__(self, dims: Mapping[str, int]) -> None:
        super().__init__()
        self.dims = dict(dims)

    @abstractmethod
    def vector(self, name: str, exists: Tensor) -> Tensor:
        """What stands for a modality.  exists: (batch, modalities) bool, in the order of `dims` → (batch, dim)"""

    def forward(self, streams: Mapping[str, Tokens]) -> dict[str, Tokens]:
        """streams: any non-empty subset of the modalities → all of them, each with a real token in every row."""
        rows = next(iter(streams.values())).x
        nowhere = torch.zeros(rows.shape[0], dtype=torch.bool, device=rows.device)
        held = [streams[n].some().squeeze(1) if n in streams else nowhere for n in self.dims]
        exists = torch.stack(held, dim=1)
        return {name: self._filled(name, streams.get(name), exists) for name in self.dims}

    def _filled(self, name: str, tokens: Tokens | None, exists: Tensor) -> Tokens:
        if tokens is not None and tokens.mask is None:
            return tokens
        vector = self.vector(name, exists)
        if tokens is None or tokens.mask is None:
            return Tokens(vector.unsqueeze(1))
        number = list(self.dims).index(name)
        lacks = ~exists[:, number : number + 1]
        first = torch.where(lacks, vector, tokens.x[:, 0])
        weight = tokens.weight
        if weight is not None:
            weight = torch.cat(
                [torch.where(lacks, torch.ones_like(weight[:, :1]), weight[:, :1]), weight[:, 1:]], dim=1
            )
        mask = torch.cat([tokens.mask[:, :1] | lacks, tokens.mask[:, 1:]], dim=1)
        return Tokens(torch.cat([first.unsqueeze(1), tokens.x[:, 1:]], dim=1), mask, weight)
