"""Token ids to embedded tokens (Devlin et al. 2019, BERT's input layer)."""

from __future__ import annotations

from typing import ClassVar, final

from torch import Tensor, nn

from triptych.model.config import EncoderConfig, Precision
from triptych.model.dense import Dense, Embedding
from triptych.model.stems.stem import Stem
from triptych.schema import Kind, Modality
from triptych.tokens import Tokens


@final
class TextStem(Stem):
    """(batch, tokens) int64, 0 is padding → a token per id.  A narrow embedding is projected to the model's width."""

    kind: ClassVar[Kind] = "text"

    def __init__(self, modality: Modality, encoder: EncoderConfig, precision: Precision) -> None:
        super().__init__(modality, encoder, precision)
        width = encoder.stem.width or encoder.dim
        self.grid = (modality.max_tokens,)
        self.tokens = modality.max_tokens
        self.embed = Embedding(modality.vocabulary, width, precision=precision)
        self.project = Dense(width, encoder.dim, precision=precision) if encoder.stem.width else nn.Identity()
        self.position = Embedding(modality.max_tokens, encoder.dim, precision=precision)

    def forward(self, raw: Tensor) -> Tokens:
        """raw: (batch, tokens) int64"""
        return Tokens(self.project(self.embed(raw)) + self.position.rows(raw.shape[1]), raw != 0)
