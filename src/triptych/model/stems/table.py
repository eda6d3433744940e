"""Table rows to one token."""

from __future__ import annotations

from typing import ClassVar, final

import torch
from torch import Tensor
from torch.nn import functional

from triptych.model.config import EncoderConfig, Precision
from triptych.model.dense import Dense
from triptych.model.stems.robust import RobustScale
from triptych.model.stems.stem import Stem
from triptych.schema import Kind, Modality
from triptych.tokens import Tokens


@final
class TableStem(Stem):
    """(batch, fields) float32, NaN where missing → one token, through a two-layer perceptron."""

    kind: ClassVar[Kind] = "table"

    def __init__(self, modality: Modality, encoder: EncoderConfig, precision: Precision) -> None:
        super().__init__(modality, encoder, precision)
        self.grid = ()
        self.tokens = 1
        self.scale = RobustScale(modality, encoder.stem.squash)
        self.up = Dense(2 * len(modality.center), encoder.stem.hidden, precision=precision)
        self.down = Dense(encoder.stem.hidden, encoder.dim, precision=precision)

    def forward(self, raw: Tensor) -> Tokens:
        """raw: (batch, fields) float32"""
        x, missing = self.scale(raw)
        x = torch.cat([x, missing.to(x.dtype)], dim=-1)
        return Tokens(self.down(functional.gelu(self.up(x))).unsqueeze(1))
