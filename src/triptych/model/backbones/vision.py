"""What vision transformers share (Dosovitskiy et al. 2021): patches, leading tokens, positions and layers."""

from __future__ import annotations

from abc import ABC
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from triptych.errors import ModelError
from triptych.model.backbones.backbone import Backbone
from triptych.model.backbones.folder import Folder
from triptych.model.backbones.layer import LayerSizes, PreNorm, stack
from triptych.model.backbones.pixels import Pixels
from triptych.model.backbones.pool import AttentionPool
from triptych.model.config import Precision, make
from triptych.model.dense import Dense, Embedding
from triptych.schema import Kind, Modality
from triptych.tokens import Tokens

_HALF = (0.5, 0.5, 0.5)


@dataclass(frozen=True)
class VisionSizes(LayerSizes):
    """Sizes of a vision transformer.

    rows, columns: of patches;  patch: pixels per side;  leading: tokens before the patches, such as a class token
    entry_norm: whether the tokens are normalised before the first layer too
    pooled: whether a pooling head's token comes first;  projection: width of a last projection; 0 means none
    mean, std: of each of three channels, on a scale from 0 to 1
    """

    rows: int = 14
    columns: int = 14
    patch: int = 16
    leading: int = 0
    entry_norm: bool = False
    pooled: bool = False
    projection: int = 0
    mean: tuple[float, ...] = _HALF
    std: tuple[float, ...] = _HALF

    def __post_init__(self) -> None:
        super().__post_init__()
        if any(not isinstance(number, int | float) for number in (*self.mean, *self.std)):
            raise ModelError(f"mean and std must be numbers, got {self.mean} and {self.std}")


class VisionBackbone(Backbone, ABC):
    """(batch, height, width, channels) uint8 → leading tokens, then a token per patch, row by row, normalised."""

    kind: ClassVar[Kind] = "image"

    def __init__(self, modality: Modality, sizes: VisionSizes, precision: Precision) -> None:
        super().__init__(modality, sizes, precision)
        self.width = sizes.projection or sizes.width
        self.grid = (sizes.rows, sizes.columns)
        self.leading, self.patch = sizes.leading + sizes.pooled, sizes.patch
        self.count = sizes.leading
        height, width = sizes.rows * sizes.patch, sizes.columns * sizes.patch
        self.pixels = Pixels(modality, height, width, sizes.mean, sizes.std)
        self.project = Dense(sizes.patch**2 * 3, sizes.width, precision=precision)
        self.position = Embedding(sizes.rows * sizes.columns, sizes.width, precision=precision)
        self.lead = Embedding(sizes.leading, sizes.width, precision=precision) if sizes.leading else None
        self.entry = nn.LayerNorm(sizes.width, eps=sizes.epsilon) if sizes.entry_norm else nn.Identity()
        self.layers = stack(PreNorm, sizes, precision)
        self.pool = AttentionPool(sizes, precision) if sizes.pooled else None
        self.norm = nn.LayerNorm(sizes.width, eps=sizes.epsilon)
        wide = (sizes.width, sizes.projection)
        self.last = Dense(*wide, precision=precision, bias=False) if sizes.projection else nn.Identity()

    @classmethod
    def read_sizes(cls, sizes: Mapping[str, Any]) -> VisionSizes:
        """Check plain values.  Raises ModelError."""
        return make(VisionSizes, sizes, mean=tuple, std=tuple)

    def forward(self, raw: Tensor) -> Tokens:
        """raw: (batch, height, width, channels) uint8 → tokens.x: (batch, leading + rows · columns, width)"""
        rows, columns = self.grid
        x = self.pixels(raw).unflatten(2, (columns, self.patch)).unflatten(1, (rows, self.patch))
        x = x.transpose(2, 3).reshape(-1, rows * columns, self.patch**2 * 3)
        x = self.project(x) + self.position.rows(rows * columns)
        if self.lead is not None:
            lead = self.lead.rows(self.count).expand(x.shape[0], -1, -1)
            x = torch.cat([lead, x], dim=1)
        x = self.entry(x)
        for layer in self.layers:
            x = layer(x)
        x = self.norm(x)
        if self.pool is not None:
            x = torch.cat([self.pool(x), x], dim=1)
        return Tokens(self.last(x))


def pixel_facts(folder: Folder, mean: tuple[float, ...], std: tuple[float, ...]) -> dict[str, Any]:
    """Mean and std of the folder's preprocessor_config.json, or the family's usual ones."""
    record = folder.record("preprocessor_config.json")
    return {"mean": list(record.get("image_mean") or mean), "std": list(record.get("image_std") or std)}


def patch_grid(folder: Folder, image: tuple[int, int] | None) -> tuple[tuple[int, int], tuple[int, int], int]:
    """Rows and columns of patches that the folder was trained with, those to run with, and pixels per patch side.

    image: height and width to run at; None means the folder's preprocessor's crop, else its config's size
    """
    patch, own = folder.number("patch_size"), _pair(folder.config.get("image_size"))
    record = folder.record("preprocessor_config.json")
    crop = record.get("crop_size") or record.get("size")
    wanted = image or (_pair(crop) if _is_size(crop) else own)
    if any(side < patch or side % patch for side in wanted):
        raise ModelError(f"height and width must be multiples of the patch of {patch} pixels, got {wanted}")
    return (own[0] // patch, own[1] // patch), (wanted[0] // patch, wanted[1] // patch), patch


def _is_size(value: Any) -> bool:
    return isinstance(value, int) or (isinstance(value, Mapping) and {"height", "width"} <= value.keys())


def _pair(value: Any) -> tuple[int, int]:
    if isinstance(value, Mapping):
        value = (value.get("height"), value.get("width"))
    pair = (value, value) if isinstance(value, int) else tuple(value or ())
    if len(pair) != 2 or any(type(side) is not int or not 0 < side <= 4096 for side in pair):
        raise ModelError(f"an image size must be one or two whole numbers of pixels up to 4096, got {value!r}")
    return pair[0], pair[1]


def placed(position: Tensor, old: tuple[int, int], new: tuple[int, int], *, antialias: bool = False) -> Tensor:
    """Positions for another grid of patches, interpolated as in DINOv2 (Oquab et al. 2024).

    position: (old rows · old columns, width) → (new rows · new columns, width)
    """
    if position.ndim != 2 or len(position) != old[0] * old[1]:
        raise ModelError(
            f"the weights hold places of shape {tuple(position.shape)}, expected {old[0] * old[1]} of them"
        )
    if old == new:
        return position
    grid = position.T.reshape(1, -1, *old)
    grid = functional.interpolate(grid, size=new, mode="bicubic", align_corners=False, antialias=antialias)
    return grid.flatten(2)[0].T.contiguous()


def flat_patches(weight: Tensor) -> Tensor:
    """Weights of a convolution over patches as those of a product.  (width, 3, patch, patch) → (width, patch² · 3)"""
    if weight.ndim != 4:
        raise ModelError(f"the weights of patches must have four axes, got {tuple(weight.shape)}")
    return weight.permute(0, 2, 3, 1).flatten(1).contiguous()
