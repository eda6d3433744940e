"""Adaptive gradient coefficients (after Li et al. 2023, AGM; recalled, without the paper at hand)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, final

import torch
from torch import Generator, Tensor

from triptych.tokens import Batch, Tokens
from triptych.train.balance.balance import Modulation, apart, encoder_parameters, others

if TYPE_CHECKING:
    from triptych.model.multimodal import Multimodal
    from triptych.train.losses import TaskLoss

LARGEST = 1.0  # of the logarithm of a coefficient, so that one odd batch cannot blow a step up


@final
class Adaptive(Modulation):
    """Hold each modality to its own running share of the answer, whatever the fusion.

    Response of modality m: φ_m = ½ [(Φ(all) − Φ(all but m)) + Φ(m)], its part in the output as Shapley counts it for
    two modalities; s_m = mean log chance of the right answer under φ_m; r_m = exp(s_m − mean of the others' s), τ_m
    the running mean of r_m.  The gradient of encoder m is scaled by κ_m = exp(−α (r_m − τ_m)), with α (r_m − τ_m) held
    within ±1.  A value's response is counted from the target's mean.

    running, steps: τ: (modalities,), and of how many steps it is the mean: (modalities,)
    """

    def __init__(self, model: Multimodal, strength: float) -> None:
        super().__init__(model, strength)
        self.register_buffer("running", torch.zeros(len(self.names)))
        self.register_buffer("steps", torch.zeros(len(self.names)))
        self.running: Tensor
        self.steps: Tensor

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
        del task
        with torch.no_grad(), apart(model):
            self.note_(model, batch, responses(model, streams, output.detach()))
        return loss

    def ratios(self) -> Tensor:
        """r of each modality: (modalities,), NaN where the batch tells nothing."""
        return (self.means() - others(self.means())).exp()

    def advance_(self) -> Tensor:
        """Take this step's ratios into the running means, then κ: (modalities,); one where the batch tells nothing."""
        ratios = self.ratios()
        known = ratios.isfinite()
        self.steps += known
        self.running += torch.where(known, (ratios - self.running) / self.steps.clamp(min=1), 0.0)
        excess = (self.strength * (ratios - self.running)).clamp(-LARGEST, LARGEST)
        return torch.where(known, (-excess).exp(), 1.0)

    def modulate_(self, model: Multimodal, generator: Generator) -> None:
        """Scale the encoders' gradients."""
        del generator
        for name, kappa in zip(self.names, self.advance_().tolist(), strict=True):
            for parameter in encoder_parameters(model, name):
                if parameter.grad is not None:
                    parameter.grad.mul_(kappa)


def responses(model: Multimodal, streams: Mapping[str, Tokens], output: Tensor) -> dict[str, Tensor]:
    """Each modality's part in the output: (batch, outputs) by name.  output: of all, (batch, outputs)"""
    center = model.schema.center if model.schema.task == "regression" else 0.0
    found = {}
    for name, tokens in streams.items():
        rest = {other: t for other, t in streams.items() if other != name}
        without = model.decide(rest) if rest else torch.full_like(output, center)
        found[name] = center + ((output - without) + (model.decide({name: tokens}) - center)) / 2
    return found
