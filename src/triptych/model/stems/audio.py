"""Waveforms to log-mel tokens (Gong et al. 2021, AST)."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor
from torch.nn import functional

from triptych.model.config import EncoderConfig, Precision
from triptych.model.dense import Dense, Embedding
from triptych.model.stems.log_mel import LogMelStem
from triptych.schema import Modality
from triptych.tokens import Tokens


@final
class AudioStem(LogMelStem):
    """(batch, samples) float32, NaN beyond a clip's end → a token per run of log-mel frames."""

    def __init__(self, modality: Modality, encoder: EncoderConfig, precision: Precision) -> None:
        super().__init__(modality, encoder, precision)
        stem = encoder.stem
        self.mask = stem.mask
        self.run = -(-self.frames // stem.max_tokens)
        self.tokens = -(-self.frames // self.run)
        self.grid = (self.tokens,)
        self.project = Dense(self.run * stem.mels, encoder.dim, precision=precision)
        self.position = Embedding(self.tokens, encoder.dim, precision=precision)

    def forward(self, raw: Tensor) -> Tokens:
        """raw: (batch, samples) float32"""
        x, real = self.runs(raw)
        return Tokens(self.project(x) + self.position.rows(self.tokens), real if self.mask else None)

    def runs(self, raw: Tensor) -> tuple[Tensor, Tensor]:
        """The frames of each token side by side, and whether it is real.

        raw: (batch, samples) float32 → (batch, tokens, run · mels), (batch, tokens) bool
        """
        x, real = self.log_mel(self.power(raw))
        if (extra := self.tokens * self.run - self.frames) > 0:
            x = functional.pad(x, (0, 0, 0, extra))
        return torch.unflatten(x, 1, (self.tokens, self.run)).flatten(2), real[:, :: self.run]
