"""Blocks of a mixer and a channel block (Yu et al. 2022, MetaFormer), after a stem."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor, nn

from triptych.errors import ModelError
from triptych.model.channels import CHANNELS
from triptych.model.config import BlockConfig, EncoderConfig, Precision
from triptych.model.mixers import MIXERS
from triptych.model.stems import STEMS, Stem
from triptych.schema import Modality
from triptych.select import METHODS, keep_best, kept_count, reduce
from triptych.tokens import Tokens


@final
class Block(nn.Module):
    """x + mixer(norm x), x + channel(norm x), then perhaps fewer tokens.

    modalities: those that share the block, which get a channel block each where the config says so
    """

    def __init__(
        self,
        dim: int,
        config: BlockConfig,
        *,
        grid: tuple[int, ...],
        precision: Precision,
        dropout: float,
        modalities: Sequence[str] = (),
    ) -> None:
        super().__init__()
        if config.mixer not in MIXERS or config.channel not in CHANNELS:
            known = f"mixers {sorted(MIXERS)}, channel blocks {sorted(CHANNELS)}"
            raise ModelError(f"unknown block {config.mixer!r} + {config.channel!r}; known are {known}")
        if config.reduce and config.reduce.method not in METHODS:
            raise ModelError(f"unknown token reduction {config.reduce.method!r}; known are {sorted(METHODS)}")
        if config.channel_per == "modality" and not modalities:
            raise ModelError("channel_per = 'modality' is for blocks that modalities share; use 'block' elsewhere")
        self.config = config
        self.mix_norm = nn.LayerNorm(dim)
        self.mixer = MIXERS[config.mixer](dim, config, grid, precision)
        self.channel_norm = nn.LayerNorm(dim)
        channel = CHANNELS[config.channel]
        self.channel = (
            nn.ModuleDict({name: channel(dim, config, precision) for name in modalities})
            if config.channel_per == "modality"
            else channel(dim, config, precision)
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tokens, modality: str = "") -> Tokens:
        """tokens.x: (batch, tokens, dim) → (batch, tokens or fewer, dim); modality: whose they are, where it matters"""
        channel = self.channel[modality] if isinstance(self.channel, nn.ModuleDict) else self.channel
        normed = tokens.with_x(self.mix_norm(tokens.x))
        x = tokens.x + self.dropout(self.mixer(normed))
        x = x + self.dropout(channel(self.channel_norm(x), tokens.mask))
        if self.config.reduce is None:
            return tokens.with_x(x)
        return reduce(
            tokens.with_x(x),
            self.config.reduce.method,
            self.config.reduce.fraction,
            received=lambda: self.mixer.received(normed),
            keys=lambda: self.mixer.keys(normed),
        )


@final
class Blocks(nn.Module):
    """A run of blocks and a last norm.  The token grid is gone after the first reduction."""

    def __init__(
        self, dim: int, configs: tuple[BlockConfig, ...], *, grid: tuple[int, ...], precision: Precision, dropout: float
    ) -> None:
        super().__init__()
        layers = []
        for config in configs:
            layers.append(Block(dim, config, grid=grid, precision=precision, dropout=dropout))
            grid = grid if config.reduce is None else ()
        self.layers = nn.ModuleList(layers)
        self.norm = nn.LayerNorm(dim)

    def forward(self, tokens: Tokens) -> Tokens:
        """tokens.x: (batch, tokens, dim)"""
        for layer in self.layers:
            tokens = layer(tokens)
        return tokens.with_x(self.norm(tokens.x))


@final
class DropTokens(nn.Module):
    """While training, only a random part of each row's tokens goes on (Liu et al. 2023, PatchDropout).

    Cheaper steps, and a network that relies on no single token; padding goes first.  Nothing outside training.
    share: part of the tokens that is left out, set by the training loop;  least: tokens that always stay
    """

    least = 16

    def __init__(self) -> None:
        super().__init__()
        self.share = 0.0

    def forward(self, tokens: Tokens) -> Tokens:
        """tokens.x: (batch, tokens, dim) → (batch, tokens or fewer, dim)"""
        if not (self.training and self.share):
            return tokens
        count = tokens.x.shape[1]
        keep = max(kept_count(count, 1 - self.share), min(count, self.least))
        return keep_best(tokens, torch.rand(tokens.x.shape[:2], device=tokens.x.device), keep)


@final
class Encoder(nn.Module):
    """A modality's stem and blocks.

    after: blocks that read its tokens next, which decide with its own whether tokens may be dropped while training
    """

    def __init__(
        self,
        modality: Modality,
        config: EncoderConfig,
        *,
        precision: Precision,
        dropout: float,
        after: tuple[BlockConfig, ...] = (),
    ) -> None:
        super().__init__()
        self.stem = _stem_class(modality, config.stem.form)(modality, config, precision)
        self.blocks = Blocks(config.dim, config.blocks, grid=self.stem.grid, precision=precision, dropout=dropout)
        blocks = (*config.blocks, *after)
        free = all(MIXERS[b.mixer].any_tokens and CHANNELS[b.channel].any_tokens for b in blocks)
        spare = modality.kind not in {"text", "codes"} and free
        self.any_tokens = free
        self.drop = DropTokens() if spare else nn.Identity()  # a word is rarely spare
        self.around: nn.Module | None = None  # an adapter that runs the blocks

    def forward(self, raw: Tensor) -> Tokens:
        """raw: as in `Batch.inputs` → tokens of width `dim`"""
        return self.go_on(self.drop(self.stem(raw)))

    def go_on(self, start: Tokens) -> Tokens:
        """What follows the stem.  start.x: (batch, tokens, dim) → (batch, tokens or fewer, dim)"""
        tokens: Tokens = self.blocks(start) if self.around is None else self.around(start, self.blocks)
        return tokens

    def keep_all_tokens(self, *, unless: bool) -> None:
        """Leave no token out while training, `unless` what follows reads any subset of them."""
        self.drop = self.drop if unless else nn.Identity()


def _stem_class(modality: Modality, form: str) -> type[Stem]:
    name = form or modality.kind
    if name not in STEMS or STEMS[name].kind not in (modality.kind, None):
        known = sorted(name for name, stem in STEMS.items() if stem.kind in (modality.kind, None))
        raise ModelError(f"no stem {name!r} for {modality.name!r}, which is {modality.kind}; known are {known}")
    return STEMS[name]
