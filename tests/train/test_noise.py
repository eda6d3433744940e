"""Noise that does what it says, and rows that become noise rung by rung."""

from dataclasses import replace

import pytest
import torch

from tests.model import tiny
from triptych.train.noise import Corrupt, corrupted, ladders


@pytest.mark.parametrize("name", [m.name for m in tiny.MODALITIES])
def test_noise_replaces_as_much_as_it_is_strong_and_nothing_that_is_missing(name: str) -> None:
    modality = next(m for m in tiny.MODALITIES if m.name == name)
    raw, generator = tiny.batch(4).inputs[name], torch.Generator().manual_seed(0)
    none, half, all_of_it = (corrupted(modality, raw, torch.full((4,), s), generator) for s in (0.0, 0.5, 1.0))
    assert torch.equal(none.nan_to_num() if none.is_floating_point() else none, raw.nan_to_num())
    for noisy in (half, all_of_it):
        assert noisy.dtype == raw.dtype
        if raw.is_floating_point():
            assert noisy.isnan().equal(raw.isnan())
        if name == "words":
            assert (noisy == 0).equal(raw == 0)
    distance = [(x.float() - raw.float()).nan_to_num().abs().mean() for x in (none, half, all_of_it)]
    assert distance[0] == 0 < distance[1] < distance[2]


def test_at_most_one_modality_of_a_row_is_corrupted() -> None:
    batch = tiny.batch(16)
    noisy = Corrupt(tiny.schema(), 1.0)(batch, torch.Generator().manual_seed(0))
    changed = torch.stack(
        [
            (noisy.inputs[n].float() - x.float()).nan_to_num().flatten(1).abs().sum(1) > 0
            for n, x in batch.inputs.items()
        ]
    )
    assert changed.sum(dim=0).max() == 1
    assert changed.any(dim=0).float().mean() > 0.8


def test_a_ladder_changes_one_modality_more_and_more() -> None:
    batch = tiny.batch(4)
    made = list(ladders(tiny.schema(), [batch], seed=0, rungs=4))
    assert [ladder.name for ladder in made] == list(tiny.schema().names)
    for ladder in made:
        assert ladder.strength[0] == 0
        assert ladder.strength[-1] == 1
        assert (ladder.strength.diff() > 0).all()
        raw = batch.inputs[ladder.name].float()
        far = [(rung.inputs[ladder.name].float() - raw).nan_to_num().abs().mean().item() for rung in ladder.rungs]
        assert far[0] == 0
        assert far == sorted(far)
        others = [name for name in batch.inputs if name != ladder.name]
        assert all(rung.inputs[name] is batch.inputs[name] for rung in ladder.rungs for name in others)


def test_noise_may_leave_nothing_of_a_modality() -> None:
    batch, schema = tiny.batch(16), tiny.schema()
    name = next(m.name for m in schema.modalities if m.kind == "image")
    black = replace(batch, inputs={**batch.inputs, name: torch.zeros_like(batch.inputs[name])})
    whole, some = (
        [Corrupt(schema, 1.0, share)(b, torch.Generator().manual_seed(0)).inputs[name] for b in (batch, black)]
        for share in (1.0, 0.0)
    )
    hit = (whole[1] > 0).flatten(1).any(dim=1)
    assert whole[0][hit].equal(whole[1][hit])
    assert not some[0][hit].equal(some[1][hit])
