"""Pairwise cross-attention (Tsai et al. 2019, MulT).  O(Σ over ordered pairs N · M · dim) time and as many blocks.

That is 'Dense Cross-Attention' of the survey's Table 1 once per ordered pair, and its self-attention per modality:
quadratic in tokens and in modalities.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import ClassVar, final

import torch
from torch import Tensor, nn

from triptych.model.config import BlockConfig, FusionConfig, Precision
from triptych.model.dense import Dense
from triptych.model.encoder import Block
from triptych.model.fusion.cross_attention import CrossBlock
from triptych.model.fusion.fusion import Fusion
from triptych.model.fusion.present import balanced_mean, shares
from triptych.tokens import Tokens


@final
class CrossFusion(Fusion):
    """Each modality reads every other one through crossmodal blocks of their own, then itself.

    The sources stay what the encoders gave.  Where the paper puts the readings of one modality side by side, this takes
    their mean over the sources that a row holds, so that any may be missing; without a source a modality keeps its own
    tokens.
    """

    mixer: ClassVar[str] = "attention"

    def __init__(self, dims: Mapping[str, int], config: FusionConfig, precision: Precision, dropout: float) -> None:
        super().__init__(dims, config, precision, dropout)
        self.project = nn.ModuleDict({name: Dense(dim, config.dim, precision=precision) for name, dim in dims.items()})
        self.layers = nn.ModuleList(
            _Layer(dims, config.dim, block, precision=precision, dropout=dropout) for block in config.blocks
        )
        self.norm = nn.ModuleDict({name: nn.LayerNorm(config.dim) for name in dims})
        self.width = config.dim

    def forward(self, streams: Mapping[str, Tokens]) -> Tensor:
        """streams: any non-empty subset of the modalities → (batch, width)"""
        present = [name for name in self.project if name in streams]
        parts = {name: streams[name].with_x(self.project[name](streams[name].x)) for name in present}
        return balanced_mean([self._finished(name, self._gathered(name, parts)) for name in present])

    def _gathered(self, target: str, parts: Mapping[str, Tokens]) -> Tokens:
        """The tokens of `target` after reading the others: (batch, tokens, dim)."""
        own, others = parts[target], [name for name in parts if name != target]
        if not others:
            return own
        share = shares([parts[name] for name in others]).unsqueeze(-1).unsqueeze(-1)
        read = torch.stack([self._read(f"across.{target}.{name}", own, parts[name]).x for name in others])
        return own.with_x((read * share).sum(dim=0) + own.x * (1 - share.sum(dim=0)))

    def _read(self, pair: str, tokens: Tokens, source: Tokens) -> Tokens:
        for layer in self.layers:
            tokens = layer.get_submodule(pair)(tokens, source)
        return tokens

    def _finished(self, name: str, tokens: Tokens) -> Tokens:
        for layer in self.layers:
            tokens = layer.get_submodule(f"within.{name}")(tokens)
        return tokens.with_x(self.norm[name](tokens.x))


@final
class _Layer(nn.Module):
    """A crossmodal block per ordered pair and a block per modality, held together because pruning removes both."""

    def __init__(
        self, names: Collection[str], dim: int, block: BlockConfig, *, precision: Precision, dropout: float
    ) -> None:
        super().__init__()
        self.across = nn.ModuleDict(
            {
                target: nn.ModuleDict(
                    {
                        source: CrossBlock(dim, block, precision=precision, dropout=dropout)
                        for source in names
                        if source != target
                    }
                )
                for target in names
            }
        )
        self.within = nn.ModuleDict(
            {name: Block(dim, block, grid=(), precision=precision, dropout=dropout) for name in names}
        )
