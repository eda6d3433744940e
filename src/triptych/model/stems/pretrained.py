"""A backbone that was trained elsewhere, as a stem."""

from __future__ import annotations

from math import prod
from typing import ClassVar, final

import torch
from torch import Tensor, nn

from triptych.errors import ModelError
from triptych.model.backbones import BACKBONES
from triptych.model.config import EncoderConfig, Precision, Take
from triptych.model.dense import Dense
from triptych.model.stems.stem import Stem
from triptych.schema import Modality
from triptych.tokens import Tokens


@final
class PretrainedStem(Stem):
    """Raw input → the backbone's tokens, or some of them → one projection to the encoder's width.

    Where the widths agree, the projection starts as the identity.
    """

    kind: ClassVar[None] = None

    def __init__(self, modality: Modality, encoder: EncoderConfig, precision: Precision) -> None:
        super().__init__(modality, encoder, precision)
        config = encoder.stem.backbone
        if config is None or config.family not in BACKBONES:
            given = None if config is None else config.family
            raise ModelError(f"a pretrained stem needs a backbone out of {sorted(BACKBONES)}, got {given!r}")
        family = BACKBONES[config.family]
        if family.kind != modality.kind:
            raise ModelError(f"{config.family!r} reads {family.kind}, but {modality.name!r} is {modality.kind}")
        self.backbone = family(modality, family.read_sizes(config.sizes), precision)
        self.take: Take = config.take
        self.grid = self._grid()
        self.tokens = prod(self.grid)
        self.adapt = Dense(self.backbone.width, encoder.dim, precision=precision)
        if self.backbone.width == encoder.dim:
            nn.init.eye_(self.adapt.weight)

    def forward(self, raw: Tensor) -> Tokens:
        """raw: as in `Batch.inputs`"""
        tokens = self.features(raw)
        return tokens.with_x(self.adapt(tokens.x))

    def features(self, raw: Tensor) -> Tokens:
        """What goes on before the projection; tokens.x: (batch, tokens, backbone's width)."""
        return taken(self.backbone(raw), self.take, leading=self.backbone.leading)

    def _grid(self) -> tuple[int, ...]:
        backbone = self.backbone
        if self.take == "grid" or (self.take == "all" and not backbone.leading):
            return backbone.grid
        return (backbone.leading + prod(backbone.grid),) if self.take == "all" else (1,)


def taken(tokens: Tokens, take: Take, *, leading: int = 0) -> Tokens:
    """Some of a backbone's tokens, see `BackboneConfig`.  leading: tokens before those with a place"""
    match take:
        case "all":
            return tokens
        case "grid":
            mask = None if tokens.mask is None else tokens.mask[:, leading:]
            return Tokens(tokens.x[:, leading:], mask)
    some = None if tokens.mask is None else tokens.some()
    if take == "mean":
        return Tokens(tokens.mean().unsqueeze(1), some)
    if take == "first":
        return Tokens(tokens.x[:, :1], some)
    if tokens.mask is None:
        return Tokens(tokens.x[:, -1:])
    place = torch.arange(tokens.x.shape[1], device=tokens.x.device)
    last = torch.where(tokens.mask, place, torch.zeros_like(place)).amax(dim=1)
    return Tokens(tokens.take(last.unsqueeze(1)).x, some)
