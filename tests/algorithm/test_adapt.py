"""How `AdaptTokens` spends a training: with the gate, then without it, on a gate that stays."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.algorithm.test_contract import SIZES
from triptych.algorithm import AdaptTokens, compress
from triptych.algorithm.tokens import adapt
from triptych.algorithm.tokens.adapt import what_decides
from triptych.model import Multimodal, build
from triptych.train import TrainConfig


@pytest.mark.parametrize(("together", "epochs", "seconds"), [(0.0, [4], [60.0]), (0.25, [1, 3], [15.0, 45.0])])
def test_the_gate_rests_in_the_last_part_of_the_training(
    tiny_data: Any, monkeypatch: pytest.MonkeyPatch, together: float, epochs: list[int], seconds: list[float]
) -> None:
    runs: list[tuple[TrainConfig, dict[str, torch.Tensor], Multimodal]] = []
    real = adapt.fit

    def spied(model: Multimodal, data: Any, config: TrainConfig, **more: Any) -> Multimodal:
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        runs.append((config, before, real(model, data, config, **more)))
        return runs[-1][2]

    monkeypatch.setattr(adapt, "fit", spied)
    torch.manual_seed(0)
    network = build("late_fusion", tiny_data.schema, **SIZES)
    train = TrainConfig(epochs=4, batch_size=8, max_seconds=60.0)
    result = compress(network, [AdaptTokens(budget=0.7, together=together)], tiny_data, train=train)
    assert [config.epochs for config, *_ in runs] == epochs
    assert [config.max_seconds for config, *_ in runs] == seconds
    resting = what_decides(result)
    assert [config.freeze for config, *_ in runs] == [(), resting][-len(runs) :]
    _, before, last = runs[-1]
    changed = {name for name, tensor in last.state_dict().items() if not torch.equal(tensor, before[name])}
    changed -= {"gate.price"}  # fitted anew when all is trained
    assert changed
    assert not any(name.startswith(("gate.", *(f"encoders.{n}.stem." for n in result.encoders))) for name in changed)
    assert result.gate is not None
    assert all(torch.equal(p, dict(last.named_parameters())[name]) for name, p in result.gate.named_parameters("gate"))
