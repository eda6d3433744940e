"""Linear probes: how much a linear function of frozen features knows of a target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from triptych.errors import TrainingError
from triptych.schema import Schema

STRENGTHS = tuple(10.0**power for power in range(-3, 4))  # of ridge, in units of the mean squared singular value
_STEPS = 100


@final
@dataclass(frozen=True, eq=False)
class Probe:
    """outputs = (features − center) / scale · weight + bias.

    center, scale: (features,); weight: (features, outputs); bias: (outputs,)
    """

    center: Tensor
    scale: Tensor
    weight: Tensor
    bias: Tensor

    def __call__(self, features: Tensor) -> Tensor:
        """features: (rows, features) → (rows, outputs)"""
        return ((features.double() - self.center) / self.scale) @ self.weight + self.bias


def fit_probe(features: Tensor, targets: NDArray[np.generic], schema: Schema, *, penalty: float = 1e-2) -> Probe:
    """The probe of a task: `logistic` for classes, `ridge` for values; rows of unknown target do not count.

    features: (rows, features); targets: as in a split.  Raises TrainingError where no target is known.
    """
    wanted = torch.from_numpy(np.asarray(targets))
    known = wanted >= 0 if schema.task == "classification" else wanted.isfinite()
    if not known.any():
        raise TrainingError("a probe needs rows with a known target, and there are none; pass a labelled split")
    if schema.task == "classification":
        return logistic(features[known], wanted[known], schema.outputs, penalty=penalty)
    return ridge(features[known], wanted[known])


def logistic(features: Tensor, classes: Tensor, outputs: int, *, penalty: float = 1e-2) -> Probe:
    """Multinomial logistic regression by L-BFGS: mean cross-entropy + penalty / 2 · ‖weight‖².

    features: (rows, features), standardised first; classes: (rows,) int64
    """
    center, scale, x = _standardised(features)
    weight = torch.zeros(x.shape[1], outputs, dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(outputs, dtype=torch.float64, requires_grad=True)
    solver = torch.optim.LBFGS([weight, bias], max_iter=_STEPS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        solver.zero_grad()
        value = F.cross_entropy(x @ weight + bias, classes) + penalty / 2 * weight.square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    solver.step(loss)  # type: ignore[no-untyped-call]
    return Probe(center, scale, weight.detach(), bias.detach())


def ridge(features: Tensor, values: Tensor) -> Probe:
    """Ridge regression in closed form; of `STRENGTHS`, the one of least generalised cross-validation error
    (Golub, Heath and Wahba 1979): n ‖y − ŷ‖² / (n − degrees of freedom)².

    features: (rows, features), standardised first; values: (rows,)
    """
    center, scale, x = _standardised(features)
    bias = values.double().mean()
    y = values.double() - bias
    left, singular, right = torch.linalg.svd(x, full_matrices=False)
    along, squares = left.T @ y, singular.square()
    best: tuple[float, Tensor] | None = None
    for strength in STRENGTHS:
        shrink = squares / (squares + strength * squares.mean().clamp(min=1e-12))
        rest = (y - left @ (shrink * along)).square().sum()
        error = (len(y) * rest / (len(y) - 1 - shrink.sum()).clamp(min=1e-6).square()).item()
        if best is None or error < best[0]:
            best = error, right.T @ (shrink / singular.clamp(min=1e-12) * along)
    weight = torch.zeros(x.shape[1], dtype=torch.float64) if best is None else best[1]
    return Probe(center, scale, weight.unsqueeze(1), bias.unsqueeze(0))


def _standardised(features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and spread per feature, and the features by them; one that never changes becomes zero."""
    x = features.double()
    center, spread = x.mean(dim=0), x.std(dim=0, correction=0)
    scale = torch.where(spread > 1e-9, spread, torch.ones_like(spread))
    return center, scale, (x - center) / scale
