"""One vector per modality, for the fusions that combine vectors and not tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

import torch
from torch import Tensor, nn

from triptych.model.config import Precision
from triptych.model.dense import Dense
from triptych.tokens import Tokens


@final
class Vectors(nn.Module):
    """The mean of each modality's tokens, projected to one width; zero where a modality is missing."""

    def __init__(self, dims: Mapping[str, int], width: int, precision: Precision, *, bias: bool = True) -> None:
        super().__init__()
        self.project = nn.ModuleDict(
            {name: Dense(dim, width, precision=precision, bias=bias) for name, dim in dims.items()}
        )
        self.width = width

    def forward(self, streams: Mapping[str, Tokens]) -> tuple[Tensor, Tensor]:
        """streams: any non-empty subset → vectors: (modalities, batch, width), exists: (modalities, batch, 1) bool"""
        some = next(iter(streams.values()))
        nothing = some.x.new_zeros(some.x.shape[0], self.width)
        nowhere = torch.zeros_like(nothing[:, :1], dtype=torch.bool)
        vectors, exists = [], []
        for name, project in self.project.items():
            tokens = streams.get(name)
            here = nowhere if tokens is None else tokens.some()
            vectors.append(nothing if tokens is None else torch.where(here, project(tokens.mean()), nothing))
            exists.append(here)
        return torch.stack(vectors), torch.stack(exists)
