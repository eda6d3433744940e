"""The currency between all parts of a network: a batch of inputs, and sequences of tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Self

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Mix:
    """How much of another row is in each row.

    partner: (batch,) int64 index in the batch; share: (batch,) float32 in [0.5, 1], the row's own part
    """

    partner: Tensor
    share: Tensor

    def to(self, device: torch.device | str) -> Self:
        """Move both tensors."""
        return replace(self, partner=self.partner.to(device), share=self.share.to(device))


@dataclass(frozen=True, slots=True)
class Batch:
    """Inputs by modality name; an absent modality has no key.

    inputs, by kind:
      image:  (batch, height, width, channels) uint8
      audio:  (batch, samples) float32, NaN beyond a clip's end
      text:   (batch, tokens) int64, 0 beyond a text's end
      series: (batch, frames, channels) float32, NaN where a sample is missing
      table:  (batch, fields) float32, NaN where a field is missing
      video:  (batch, frames, height, width, channels) uint8
      points: (batch, points, features) float32, NaN beyond a cloud's end
      codes:  (batch, tokens, levels) int64, 1 + code, 0 where there is none
    present: (batch,) bool for a modality that only some rows have; no key means that all have it
    target:  (batch,) int64 class index (-1 unknown) or float32 value (NaN unknown); for retrieval (batch, 2) int64,
             what the query and the target show: equal numbers are equal values (-1 missing); None when predicting
    rows:    (batch,) int64 row numbers in the split
    mix:     which rows were mixed into which; None outside training with mixup
    """

    inputs: Mapping[str, Tensor]
    present: Mapping[str, Tensor] = field(default_factory=dict)
    target: Tensor | None = None
    rows: Tensor | None = None
    mix: Mix | None = None

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))

    def to(self, device: torch.device | str) -> Self:
        """Move every tensor."""
        return replace(
            self,
            inputs={k: v.to(device) for k, v in self.inputs.items()},
            present={k: v.to(device) for k, v in self.present.items()},
            target=None if self.target is None else self.target.to(device),
            mix=None if self.mix is None else self.mix.to(device),
        )

    def only(self, *names: str) -> Self:
        """The same rows with a subset of the modalities."""
        return replace(
            self,
            inputs={k: v for k, v in self.inputs.items() if k in names},
            present={k: v for k, v in self.present.items() if k in names},
        )


@dataclass(frozen=True, slots=True)
class Tokens:
    """A batch of token sequences.

    x:      (batch, tokens, dim) features
    mask:   (batch, tokens) bool, True where a token is real; None means that all are
    weight: (batch, tokens) how many original tokens each one stands for; None means one each
    """

    x: Tensor
    mask: Tensor | None = None
    weight: Tensor | None = None

    def with_x(self, x: Tensor) -> Tokens:
        """The same sequence with other features.  x: (batch, tokens, dim)"""
        return replace(self, x=x)

    def real(self) -> Tensor:
        """Mask as a tensor: (batch, tokens) bool."""
        return torch.ones(self.x.shape[:2], dtype=torch.bool, device=self.x.device) if self.mask is None else self.mask

    def weights(self) -> Tensor:
        """Weights as a tensor, zero where a token is not real: (batch, tokens)."""
        real = self.real().to(self.x.dtype)
        return real if self.weight is None else self.weight * real

    def take(self, index: Tensor) -> Tokens:
        """Gather tokens.  index: (batch, kept) int64"""
        wide = index.unsqueeze(-1).expand(-1, -1, self.x.shape[-1])
        return Tokens(
            x=self.x.gather(1, wide),
            mask=None if self.mask is None else self.mask.gather(1, index),
            weight=None if self.weight is None else self.weight.gather(1, index),
        )

    def mean(self) -> Tensor:
        """Mean of the real tokens, weighted: (batch, dim); zero where no token is real."""
        if self._is_one():
            return self.x[:, 0] if self.mask is None else torch.where(self.mask, self.x[:, 0], 0.0)
        if self.mask is None and self.weight is None:
            return self.x.mean(dim=1)
        weight = self.weights()
        total = weight.sum(dim=1, keepdim=True).clamp(min=1e-6)
        return (self.x * (weight / total).unsqueeze(-1)).sum(dim=1)

    def some(self) -> Tensor:
        """Whether a row has a token that is real: (batch, 1) bool.  A graph takes the sum that `mean` divides by."""
        return self.real() if self._is_one() else self.weights().sum(dim=1, keepdim=True) > 0

    def most(self) -> Tensor:
        """Largest value of each feature among the real tokens: (batch, dim); zero where no token is real."""
        if self.mask is None:
            return self.x.amax(dim=1)
        real = self.mask.unsqueeze(-1)
        largest = self.x.masked_fill(~real, torch.finfo(self.x.dtype).min).amax(dim=1)
        return torch.where(self.some(), largest, 0.0)

    def _is_one(self) -> bool:
        """Whether there is one token per row, and a graph knows that."""
        count = self.x.shape[1]
        return isinstance(count, int) and count == 1
