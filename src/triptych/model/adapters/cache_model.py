"""A cache of known examples (Zhang et al. 2022, Tip-Adapter): no training, one pass over some labelled data."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import TYPE_CHECKING, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from triptych.errors import ModelError
from triptych.model.adapters.adapter import Adapter
from triptych.model.config import AdapterConfig
from triptych.tokens import Batch

if TYPE_CHECKING:
    from triptych.model.fusion import Fusion
    from triptych.model.multimodal import Multimodal


@final
class CacheModel(Adapter):
    """logits + α · exp(−β (1 − f kᵀ)) v, with an example's fused feature f and cached ones k of unit length.

    v is one-hot labels, α the config's `blend` and β its `sharpness`.  O(entries · width) per example.  Whoever trains
    it after all trains k, which is the paper's Tip-Adapter-F.
    """

    def __init__(self, width: int, classes: int, config: AdapterConfig) -> None:
        super().__init__()
        self.blend, self.sharpness = config.blend, config.sharpness
        self.keys = nn.Parameter(torch.zeros(config.entries, width))
        self.register_buffer("values", torch.zeros(config.entries, classes))
        self.values: Tensor

    def forward(self, vector: Tensor, logits: Tensor) -> Tensor:
        """vector: (batch, width), logits: (batch, classes) → (batch, classes)"""
        alike = functional.normalize(vector, dim=-1) @ self.keys.t()
        return logits + self.blend * ((self.sharpness * (alike - 1)).exp() @ self.values)

    @classmethod
    def join_(cls, model: Multimodal, config: AdapterConfig) -> None:
        """Let a cache vote on the classes.  Raises ModelError without entries."""
        fusion = _fusion(model)
        if not config.entries:
            raise ModelError("'cache_model' has no entries; pass labelled batches to adapt")
        model.votes = cls(fusion.width, model.schema.outputs, config)

    @classmethod
    @torch.no_grad()
    def begin(
        cls, model: Multimodal, config: AdapterConfig, data: Iterable[Batch] | None
    ) -> tuple[AdapterConfig, dict[str, Tensor]]:
        """Features and labels of the rows whose label is known.  Raises ModelError without any."""
        fusion = _fusion(model)
        keys, labels = [], []
        training, device = model.training, next(model.parameters()).device
        model.eval()
        for batch in data or ():
            if batch.target is not None:
                known = batch.target >= 0
                vector = fusion(model.encode_all(batch.only(*model.schema.names).to(device)))
                keys.append(functional.normalize(vector[known.to(device)], dim=-1))
                labels.append(batch.target[known])
        model.train(training)
        if not sum(map(len, labels)):
            raise ModelError("'cache_model' needs labelled examples; pass batches with targets as data")
        values = functional.one_hot(torch.cat(labels), model.schema.outputs).float()
        sized = dataclasses.replace(config, entries=len(values))
        return sized, {"votes.keys": torch.cat(keys), "votes.values": values.to(device)}


def _fusion(model: Multimodal) -> Fusion:
    if model.schema.task != "classification" or model.fusion is None:
        raise ModelError(f"'cache_model' votes on classes, but the task is {model.schema.task}; choose another adapter")
    return model.fusion
