"""Losses that parts of a network add: summed with their weight, forgotten after a step, and exact after a resume."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from triptych.data.loader import batches
from triptych.model import Multimodal, build
from triptych.model.auxiliary import Auxiliary, take_auxiliary
from triptych.tokens import Batch
from triptych.train import fit, fit_with_history
from triptych.train.progress import TrainProgress
from triptych.train.run import Loss

from .small import SIZES, config, same


class Paying(Auxiliary):
    """Costs what it holds."""

    def __init__(self, cost: float) -> None:
        super().__init__()
        self.cost = nn.Parameter(torch.tensor(cost))

    def forward(self) -> None:
        """Leave the cost behind."""
        self.auxiliary = self.cost.clone()


class Parts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.ModuleList([Paying(2.0), nn.Linear(1, 1), Paying(3.0), Paying(100.0)])


def used(model: Parts, _batch: object) -> Tensor:
    """An objective of ten that uses two of the parts."""
    model.parts[0]()
    model.parts[2]()
    return torch.tensor(10.0)


@pytest.mark.parametrize(("weight", "expected"), [(1.0, 15.0), (0.5, 12.5), (0.0, 10.0)])
def test_what_the_used_parts_add_is_weighed_and_forgotten(weight: float, expected: float) -> None:
    loss = Loss(Parts(), used, weight)  # type: ignore[arg-type]
    for _ in range(2):
        assert loss(Batch({})).item() == expected
    assert all(part.auxiliary is None for part in loss.modules() if isinstance(part, Auxiliary))


def network(tiny_data, seed: int = 0) -> Multimodal:
    torch.manual_seed(seed)
    return build("product_of_experts_fusion", tiny_data.schema, **SIZES)


def test_training_lowers_the_divergence_that_it_pays_for(tiny_data) -> None:
    batch = next(iter(batches(tiny_data.train, tiny_data.schema, batch_size=32, seed=0)))

    def paid(weight: float) -> float:
        seen: list[float] = []

        @torch.no_grad()
        def look(model: Multimodal, _fraction: float) -> None:
            model(batch)
            seen.extend(term.item() for term in take_auxiliary(model))

        fit(network(tiny_data), tiny_data, config(epochs=4, auxiliary_weight=weight), after_step=look)
        return seen[-1] / seen[0]

    assert paid(1e4) < 0.9 * paid(0.0)


class StoppedError(Exception):
    pass


def test_a_resumed_run_pays_the_same(tiny_data, tmp_path: Path) -> None:
    def stop(event: TrainProgress) -> None:
        if event.step == 2:
            raise StoppedError

    options = config(epochs=2, average=0.9, checkpoint_every_s=0.0, auxiliary_weight=10.0)
    whole = fit_with_history(network(tiny_data), tiny_data, options)
    with pytest.raises(StoppedError):
        fit(network(tiny_data), tiny_data, options, folder=tmp_path, progress=stop)
    parts = fit_with_history(network(tiny_data, seed=9), tiny_data, options, folder=tmp_path, resume=True)
    assert same(whole.model, parts.model)
    assert whole.history[-1]["loss"] == parts.history[-1]["loss"]
