"""Discrete codes to tokens, as language models read them (Borsos et al. 2023, AudioLM; Copet et al. 2023, MusicGen)."""

from __future__ import annotations

from typing import ClassVar, final

import torch
from torch import Tensor, nn

from triptych.model.config import EncoderConfig, Precision
from triptych.model.dense import Dense, Embedding
from triptych.model.stems.stem import Stem
from triptych.schema import Kind, Modality
from triptych.tokens import Tokens


@final
class CodesStem(Stem):
    """(batch, tokens, levels) int64, 1 + code, 0 where there is none → a token per position.

    A position is the sum of one embedding per level, as a residual quantizer's vector is the sum of its codewords; a
    level that is missing adds nothing.  A narrow embedding is projected to the model's width.
    """

    kind: ClassVar[Kind] = "codes"

    def __init__(self, modality: Modality, encoder: EncoderConfig, precision: Precision) -> None:
        super().__init__(modality, encoder, precision)
        width = encoder.stem.width or encoder.dim
        self.levels = modality.channels
        self.grid = (modality.max_tokens,)
        self.tokens = modality.max_tokens
        self.embed = Embedding(self.levels * modality.vocabulary, width, precision=precision)
        self.project = Dense(width, encoder.dim, precision=precision) if encoder.stem.width else nn.Identity()
        self.position = Embedding(modality.max_tokens, encoder.dim, precision=precision)
        first = torch.arange(self.levels) * modality.vocabulary
        self.register_buffer("first", first, persistent=False)
        self.first: Tensor

    def forward(self, raw: Tensor) -> Tokens:
        """raw: (batch, tokens, levels) int64"""
        known = raw != 0
        vectors = self.embed((raw + self.first).flatten(1)).unflatten(1, (-1, self.levels))
        x = (vectors * known.unsqueeze(-1)).sum(dim=2)
        return Tokens(self.project(x) + self.position.rows(raw.shape[1]), known.any(dim=2))
