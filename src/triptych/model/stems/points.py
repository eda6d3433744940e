"""Point clouds to tokens of a bird's-eye grid (Lang et al. 2019, PointPillars)."""

from __future__ import annotations

from typing import ClassVar, final

import torch
from torch import Tensor
from torch.nn import functional

from triptych.errors import ModelError
from triptych.model.config import EncoderConfig, Precision
from triptych.model.dense import Dense, Embedding
from triptych.model.stems.robust import RobustScale
from triptych.model.stems.stem import Stem
from triptych.schema import Kind, Modality
from triptych.tokens import Tokens


@final
class PointsStem(Stem):
    """(batch, points, features) float32, the first two places on the ground, NaN where there is none → grid tokens.

    A small perceptron reads each point and where in its cell it lies; a cell holds the largest of each feature over its
    points, and a token a square of cells.  Features are scaled robustly to z / (4 + |z|), which is where the grid lies
    too: even near the median, coarser far away, and without an end, so that no point is left out.
    """

    kind: ClassVar[Kind] = "points"

    def __init__(self, modality: Modality, encoder: EncoderConfig, precision: Precision) -> None:
        super().__init__(modality, encoder, precision)
        stem = encoder.stem
        if modality.channels < 2:
            raise ModelError(f"{modality.name!r} needs two features or more, its place first; it has one")
        if stem.cells % stem.cell_patch:
            raise ModelError(f"{stem.cells} cells do not divide into tokens of {stem.cell_patch}; change one of them")
        self.cells, self.patch, self.hidden, self.mask = stem.cells, stem.cell_patch, stem.hidden, stem.mask
        self.grid = (self.cells // self.patch,) * 2
        self.tokens = self.grid[0] * self.grid[1]
        self.scale = RobustScale(modality, "softsign")
        self.point = Dense(modality.channels + 2, stem.hidden, precision=precision)
        self.project = Dense(stem.hidden * self.patch**2, encoder.dim, precision=precision)
        self.position = Embedding(self.tokens, encoder.dim, precision=precision)

    def forward(self, raw: Tensor) -> Tokens:
        """raw: (batch, points, features) float32"""
        x, missing = self.scale(raw)
        gone = missing[..., :2].any(dim=-1)
        place = (x[..., :2] + 1) * (self.cells / 2)
        cell = place.floor().clamp(0, self.cells - 1)
        features = functional.relu(self.point(torch.cat([x, place - cell - 0.5], dim=-1)))
        index = (cell[..., 1] * self.cells + cell[..., 0]).to(torch.int64).masked_fill(gone, self.cells**2)
        filled = torch.cat([features, torch.ones_like(features[..., :1])], dim=-1)
        cells = self._squares(self._largest(filled, index))
        mask = cells[:, :, self.hidden].amax(dim=2) > 0 if self.mask else None
        return Tokens(self.project(cells[:, :, : self.hidden].flatten(2)) + self.position.rows(self.tokens), mask)

    def _largest(self, features: Tensor, index: Tensor) -> Tensor:
        """Largest features of each cell, zero where it is empty; features are not negative.

        features: (batch, points, width), index: (batch, points), one cell more for what is no point
        → (batch, cells², width)
        """
        empty = features.new_zeros(features.shape[0], self.cells**2 + 1, features.shape[2])
        where = index.unsqueeze(-1).expand(-1, -1, features.shape[2])
        return empty.scatter_reduce(1, where, features, "amax", include_self=True)[:, :-1]

    def _squares(self, cells: Tensor) -> Tensor:
        """cells: (batch, cells², width) → (batch, tokens, width, patch²)"""
        rows, columns = self.grid
        squares = torch.unflatten(cells, 1, (rows, self.patch, columns, self.patch)).permute(0, 1, 3, 5, 2, 4)
        return squares.flatten(4, 5).flatten(1, 2)
