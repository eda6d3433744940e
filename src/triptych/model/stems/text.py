"""Token ids to embedded tokens (Devlin et al. 2019, BERT's input layer)."""

from __future__ import annotations

from typing import final

from torch import Tensor, nn

from triptych.model.config import EncoderConfig, Precision
from triptych.model.dense import Dense, Embedding
from triptych.schema import Modality
from triptych.tokens import Tokens


@final
class TextStem(nn.Module):
    """(batch, tokens) int64, 0 is padding → a token per id.  A narrow embedding is projected to the model's width."""

    def __init__(self, modality: Modality, encoder: EncoderConfig, precision: Precision) -> None:
        super().__init__()
        width = encoder.stem.width or encoder.dim
        self.grid: tuple[int, ...] = ()
        self.tokens = modality.max_tokens
        self.embed = Embedding(modality.vocabulary, width, precision=precision)
        self.project = Dense(width, encoder.dim, precision=precision) if width != encoder.dim else nn.Identity()
        self.position = Embedding(modality.max_tokens, encoder.dim, precision=precision)

    def forward(self, ids: Tensor) -> Tokens:
        """ids: (batch, tokens) int64"""
        return Tokens(self.project(self.embed(ids)) + self.position.rows(ids.shape[1]), ids != 0)
