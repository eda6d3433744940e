"""Training rows that lack modalities for good, as where a sensor failed; unlike modality dropout, drawn per step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self, final

import numpy as np
import torch
from torch import Tensor

from triptych.errors import RecipeError, TrainingError
from triptych.tokens import Batch
from triptych.train.augment import hide, present_rows
from triptych.train.config import TrainConfig

_STREAM = 0x6D697373  # so that these draws are like no others of the same seed


@final
@dataclass(frozen=True, eq=False)
class Incomplete:
    """Hide from each incomplete row the same modalities in every epoch, before anything else is done to it.

    A share of the rows is incomplete: each lacks a part of its modalities, drawn evenly from all that leave one.  A row
    of the data that would be left with nothing, because it lacked some already, stays as it is.

    names: the modalities;  keep: (rows, modalities) bool
    """

    names: tuple[str, ...]
    keep: Tensor

    @classmethod
    def of(cls, config: TrainConfig, names: Sequence[str], rows: int) -> Self | None:
        """From the options of a run; None where they ask for none.  Raises RecipeError for a single modality."""
        if not config.incomplete:
            return None
        if len(names) < 2:
            raise RecipeError(
                f"incomplete={config.incomplete} needs several modalities, got {list(names)}; set it to 0"
            )
        return cls(tuple(names), kept(rows, len(names), config.incomplete, config.seed))

    def __call__(self, batch: Batch) -> Batch:
        """Hide what the rows lack.  Raises TrainingError for a batch that does not know its row numbers."""
        if batch.rows is None:
            raise TrainingError("rows that lack modalities for good need batches that know their row numbers")
        names = [name for name in self.names if name in batch.inputs]
        had = torch.stack([present_rows(batch, name) for name in names], dim=1)
        keep = had & self.keep[batch.rows][:, [self.names.index(name) for name in names]]
        keep = torch.where(keep.any(dim=1, keepdim=True), keep, had)
        changed = {n: keep[:, i] for i, n in enumerate(names) if not keep[:, i].equal(had[:, i])}
        return hide(batch, changed)


def kept(rows: int, modalities: int, share: float, seed: int) -> Tensor:
    """Which modalities each row keeps: (rows, modalities) bool; exactly the share of the rows, rounded, lack some."""
    generator = np.random.default_rng([seed, _STREAM])
    keep = np.ones((rows, modalities), bool)
    chosen = generator.permutation(rows)[: round(share * rows)]
    parts = generator.integers(1, 2**modalities - 1, len(chosen))  # what is kept, as bits: not none and not all
    keep[chosen] = parts[:, None] >> np.arange(modalities) & 1
    return torch.from_numpy(keep)
