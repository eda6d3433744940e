"""On-the-fly gradient modulation with generalisation enhancement (Peng et al. 2022, OGM-GE)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, final

import torch
from torch import Generator, Tensor

from triptych.tokens import Batch, Tokens
from triptych.train.balance.balance import Modulation, alone, apart, encoder_parameters, others

if TYPE_CHECKING:
    from triptych.model.multimodal import Multimodal
    from triptych.train.losses import TaskLoss

ALPHA = 0.5


@final
class OnTheFly(Modulation):
    """Slow down the encoder whose modality alone is surer of the right answer than the others are.

    s_m = mean chance that modality m alone gives the right class, ρ_m = s_m / mean of the others' s;
    k_m = 1 − tanh(α · ρ_m) where ρ_m > 1, else 1.  The gradient of encoder m becomes k_m · g + noise of g's own spread,
    on matrices, which are what the paper's convolutions are here.  For a value the chance is exp(−loss).
    """

    def score(self, cost: Tensor) -> Tensor:
        """The chance of the right answer: (rows,) → (rows,)"""
        return (-cost).exp()

    def loss(
        self,
        task: TaskLoss,
        model: Multimodal,
        *,
        batch: Batch,
        streams: Mapping[str, Tokens],
        output: Tensor,
        loss: Tensor,
    ) -> Tensor:
        """Look, and leave the loss as it is."""
        del task, output
        with torch.no_grad(), apart(model):
            self.note_(model, batch, alone(model, streams))
        return loss

    def coefficients(self) -> Tensor:
        """k of each modality: (modalities,); one where the batch tells nothing."""
        ratio = self.means() / others(self.means())
        return torch.where(ratio > 1, 1 - (ALPHA * self.strength * ratio).tanh(), torch.ones_like(ratio))

    def modulate_(self, model: Multimodal, generator: Generator) -> None:
        """Scale the encoders' gradients and add the noise."""
        for name, k in zip(self.names, self.coefficients().tolist(), strict=True):
            for parameter in encoder_parameters(model, name):
                gradient = parameter.grad
                if gradient is None:
                    continue
                spread = gradient.std(correction=0)
                gradient.mul_(k)
                if gradient.ndim > 1:
                    noise = torch.randn(gradient.shape, generator=generator)
                    gradient.add_(noise.to(gradient) * spread)
