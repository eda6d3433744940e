"""What a frozen backbone answered, kept beforehand, in place of the backbone."""

from __future__ import annotations

from typing import ClassVar, final

from torch import Tensor

from triptych.model.config import EncoderConfig, Precision
from triptych.model.dense import Dense
from triptych.model.stems.stem import Stem
from triptych.schema import Kind, Modality
from triptych.tokens import Tokens


@final
class FeaturesStem(Stem):
    """(batch, tokens, width) float32, NaN where a token is not real → the projection of a `PretrainedStem`."""

    kind: ClassVar[Kind] = "series"

    def __init__(self, modality: Modality, encoder: EncoderConfig, precision: Precision) -> None:
        super().__init__(modality, encoder, precision)
        self.tokens = modality.frames
        self.grid = (self.tokens,)
        self.mask = encoder.stem.mask
        self.adapt = Dense(modality.channels, encoder.dim, precision=precision)

    def forward(self, raw: Tensor) -> Tokens:
        """raw: (batch, tokens, width) float32"""
        mask = raw[..., 0].isnan().logical_not() if self.mask else None
        return Tokens(self.adapt(raw.nan_to_num()), mask)
