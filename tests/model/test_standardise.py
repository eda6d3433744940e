"""Running moments: right from the first batch on, and still when nothing is trained."""

from __future__ import annotations

import pytest
import torch

from triptych.model.standardise import Standardise


def test_moments_are_averages_at_first_and_follow_slowly_later() -> None:
    layer = Standardise(1, least=0.0, far=9.0, pace=0.25)
    layer(torch.tensor([[1.0], [3.0]]))
    assert (layer.mean.item(), layer.variance.item()) == (2.0, 1.0)
    layer(torch.tensor([[4.0], [8.0]]))
    assert (layer.mean.item(), layer.variance.item()) == (4.0, 2.5)
    for _ in range(40):
        layer(torch.tensor([[4.0], [8.0]]))
    before = layer.mean.item()
    layer(torch.tensor([[100.0], [100.0]]))
    assert layer.mean.item() == pytest.approx(before + 0.25 * (100 - before))


def test_numbers_are_told_by_how_far_they_lie_from_what_is_usual() -> None:
    layer = Standardise(2, least=1e-6, far=3.0).eval()
    rows = torch.tensor([[0.0, 0.001], [2.0, 0.003]])
    layer.set_(rows)
    assert torch.allclose(layer(rows), torch.tensor([[-1.0, -0.7071], [1.0, 0.7071]]), atol=1e-3)
    assert layer(torch.tensor([[1e6, -1e6]])).tolist() == [[3.0, -3.0]]
    assert layer.batches.item() == 0
