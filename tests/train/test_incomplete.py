"""Training rows that lack modalities for good: the share, the rows, and that nothing ever shows them."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from triptych.data.loader import batch_of
from triptych.errors import RecipeError, TrainingError
from triptych.train import fit
from triptych.train.augment import present_rows
from triptych.train.missing import Incomplete, kept

from .small import config, network


def test_exactly_the_share_of_the_rows_lacks_a_proper_part() -> None:
    for share in (0.0, 0.3, 0.9):
        keep = kept(1000, 3, share, seed=4)
        assert (~keep).any(dim=1).sum() == 1000 * share
        assert keep.any(dim=1).all()
    counts = [(kept(6000, 3, 0.9, 0).long() @ torch.tensor([1, 2, 4])).bincount(minlength=8).tolist()]
    assert counts[0][0] == 0
    assert counts[0][7] == 600
    assert all(800 < count < 1000 for count in counts[0][1:7])  # 5400 over six parts
    assert kept(50, 2, 0.5, 0).equal(kept(50, 2, 0.5, 0))
    assert not kept(50, 2, 0.5, 0).equal(kept(50, 2, 0.5, 1))


def test_a_row_lacks_the_same_in_every_batch(tiny_data) -> None:
    names = tiny_data.schema.names
    hide = Incomplete.of(config(incomplete=0.9), names, len(tiny_data.train))
    whole = hide(batch_of(tiny_data.train, range(48)))
    for rows in ([5, 3, 40], [3]):
        few = hide(batch_of(tiny_data.train, rows))
        for name in names:
            here = present_rows(few, name) if name in few.inputs else torch.zeros(len(rows), dtype=torch.bool)
            assert here.equal(whole.present[name][rows])
    before = batch_of(tiny_data.train, range(48))
    for name in names:
        gone = ~whole.present[name]
        assert gone.any()
        x = whole.inputs[name][gone]
        assert (x.isnan() if x.is_floating_point() else x == 0).all()
        assert whole.inputs[name][~gone].nan_to_num(9).equal(before.inputs[name][~gone].nan_to_num(9))


def test_a_row_is_never_left_with_nothing(tiny_data) -> None:
    names = tiny_data.schema.names[:2]
    hide = Incomplete(names, torch.tensor([[True, False]] * 48))
    batch = batch_of(tiny_data.train, range(48)).only(*names)
    had = torch.stack([present_rows(batch, name) for name in names])
    after = hide(batch)
    held = torch.stack(
        [present_rows(after, name) if name in after.inputs else torch.zeros(48).bool() for name in names]
    )
    assert held.any(dim=0).equal(had.any(dim=0))
    only_second = ~had[0] & had[1]
    assert only_second.any()
    assert held[1].equal(only_second)


def test_training_sees_what_is_left_in_every_epoch(tiny_data) -> None:
    seen: dict[int, set[tuple[bool, ...]]] = {}

    def watch(batch, generator):
        held = [
            present_rows(batch, n) if n in batch.inputs else torch.zeros(len(batch)).bool()
            for n in tiny_data.schema.names
        ]
        for row, parts in zip(batch.rows.tolist(), torch.stack(held, dim=1).tolist(), strict=True):
            seen.setdefault(row, set()).add(tuple(parts))
        return batch

    fit(network(tiny_data), tiny_data, config(epochs=2, incomplete=0.5), augment=watch)
    assert len(seen) == 48
    assert all(len(parts) == 1 for parts in seen.values())
    keep = kept(48, 5, 0.5, 0)
    native = [
        i
        for i in range(48)
        if not all(
            tiny_data.train.table.feed(m).present[tiny_data.train.numbers[i]] for m in tiny_data.schema.modalities
        )
    ]
    for row in set(range(48)) - set(native):
        assert seen[row] == {tuple(keep[row].tolist())}


def test_what_cannot_be_is_refused(tiny_data, tiny_pairs_data, pairs_model) -> None:
    with pytest.raises(RecipeError, match="needs several modalities"):
        Incomplete.of(config(incomplete=0.5), ("text",), 3)
    assert Incomplete.of(config(), ("text",), 3) is None
    with pytest.raises(RecipeError, match="whole pairs"):
        fit(pairs_model, tiny_pairs_data, config(incomplete=0.5))
    batch = dataclasses.replace(batch_of(tiny_data.train, [0, 1]), rows=None)
    with pytest.raises(TrainingError, match="know their row numbers"):
        Incomplete.of(config(incomplete=0.5), tiny_data.schema.names, 48)(batch)
