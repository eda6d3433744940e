"""Layers of an exchange between the modalities, shared by the fusions that differ in their cross-attention alone."""

from __future__ import annotations

from abc import ABC
from collections.abc import Collection, Mapping
from typing import ClassVar, final

from torch import Tensor, nn

from triptych.model.config import BlockConfig, FusionConfig, Precision
from triptych.model.dense import Dense
from triptych.model.encoder import Block
from triptych.model.fusion.cross_attention import CrossAttention, Reading
from triptych.model.fusion.fusion import Fusion
from triptych.model.fusion.present import balanced_mean, concat
from triptych.tokens import Tokens


class Exchange(Fusion, ABC):
    """Layer by layer, every modality reads the tokens of all others at once, then a block of its own goes over them.

    attention: how tokens read the others
    """

    attention: ClassVar[type[CrossAttention]]

    def __init__(self, dims: Mapping[str, int], config: FusionConfig, precision: Precision, dropout: float) -> None:
        super().__init__(dims, config, precision, dropout)
        self.project = nn.ModuleDict({name: Dense(dim, config.dim, precision=precision) for name, dim in dims.items()})
        self.layers = nn.ModuleList(
            _Layer(dims.keys(), config.dim, block, self.attention, precision=precision, dropout=dropout)
            for block in config.blocks
        )
        self.norm = nn.ModuleDict({name: nn.LayerNorm(config.dim) for name in dims})
        self.width = config.dim

    def forward(self, streams: Mapping[str, Tokens]) -> Tensor:
        """streams: any non-empty subset of the modalities → (batch, width)"""
        present = [name for name in self.project if name in streams]
        parts = {name: streams[name].with_x(self.project[name](streams[name].x)) for name in present}
        for layer in self.layers:
            parts = layer(parts)
        return balanced_mean([parts[name].with_x(self.norm[name](parts[name].x)) for name in present])


@final
class _Layer(nn.Module):
    """A reading step and a block per modality."""

    def __init__(
        self,
        names: Collection[str],
        dim: int,
        block: BlockConfig,
        attention: type[CrossAttention],
        *,
        precision: Precision,
        dropout: float,
    ) -> None:
        super().__init__()
        readers = names if len(names) > 1 else ()
        self.across = nn.ModuleDict(
            {name: Reading(dim, block, attention, precision=precision, dropout=dropout) for name in readers}
        )
        self.within = nn.ModuleDict(
            {name: Block(dim, block, grid=(), precision=precision, dropout=dropout) for name in names}
        )

    def forward(self, parts: Mapping[str, Tokens]) -> dict[str, Tokens]:
        """parts: tokens of one width by modality → the same modalities, all read at the same time"""
        return {name: self.within[name](self._met(name, parts)) for name in parts}

    def _met(self, name: str, parts: Mapping[str, Tokens]) -> Tokens:
        others = [tokens for other, tokens in parts.items() if other != name]
        met: Tokens = self.across[name](parts[name], concat(others)) if others else parts[name]
        return met
