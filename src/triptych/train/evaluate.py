"""What a network answers on a split, and how good that is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from triptych.data.dataset import Split
from triptych.data.loader import batches
from triptych.errors import DataError
from triptych.measure.quality import higher_is_better, quality
from triptych.schema import Schema
from triptych.tokens import Batch
from triptych.train.losses import plain_loss

if TYPE_CHECKING:
    from triptych.model.multimodal import Multimodal

Outputs = NDArray[np.float32]


@dataclass(frozen=True, order=True)
class Score:
    """A validation: ordered so that the larger is the better one; ties in rank fall to the smaller loss."""

    rank: float
    negative_loss: float

    @classmethod
    def of(cls, outputs: Outputs, targets: NDArray[np.generic], schema: Schema) -> Score:
        """Score outputs: (rows, outputs) against targets: as in the split."""
        value = quality(outputs.astype(np.float64), targets, schema)
        loss = plain_loss(schema).rows(schema, torch.from_numpy(outputs), torch.from_numpy(targets))
        return cls(value if higher_is_better(schema.metric) else -value, -loss.item())

    @property
    def loss(self) -> float:
        """Task loss."""
        return -self.negative_loss

    def quality(self, schema: Schema) -> float:
        """The schema's metric."""
        return self.rank if higher_is_better(schema.metric) else -self.rank


def predict(model: Multimodal, split: Split, *, batch_size: int = 256, workers: int = 0) -> Outputs:
    """Answers for every row, in order: (rows, outputs) float32."""
    wanted = batches(split, model.schema, batch_size=batch_size, seed=0, shuffle=False, workers=workers)
    return predict_batches(model, wanted)


def predict_batches(model: Multimodal, wanted: Iterable[Batch]) -> Outputs:
    """Answers for the rows of the batches, in order: (rows, outputs) float32.  Leaves the mode of `model` as it was."""
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    with in_eval(model), torch.inference_mode():
        outputs = [model(batch.to(device)).float().cpu() for batch in wanted]
    if not outputs:
        raise DataError("nothing to predict: the split has no rows")
    answers: Outputs = torch.cat(outputs).numpy()
    return answers


def evaluate(model: Multimodal, split: Split, *, batch_size: int = 256, workers: int = 0) -> float:
    """The schema's metric on a split."""
    outputs = predict(model, split, batch_size=batch_size, workers=workers)
    return quality(outputs.astype(np.float64), np.asarray(split.targets), model.schema)


@contextmanager
def in_eval(network: nn.Module) -> Iterator[None]:
    """Evaluation mode inside, the former mode of every part afterwards."""
    training = [m for m in network.modules() if m.training]
    network.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
