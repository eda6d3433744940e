"""How to train: one frozen dataclass of plain values."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self, get_args

from triptych.errors import RecipeError

Precision = Literal["auto", "float32", "bfloat16"]
DropUnit = Literal["row", "batch"]
Contrast = Literal["info_nce", "sigmoid"]

_FRACTIONS = (
    "warmup",
    "final_lr",
    "label_smoothing",
    "modality_dropout",
    "incomplete",
    "token_dropout",
    "all_tokens",
    "average",
    "crop",
    "tint",
    "warp",
    "mask_bands",
)
_AT_LEAST_ZERO = (
    "weight_decay",
    "clip",
    "exit_weight",
    "auxiliary_weight",
    "checkpoint_every_s",
    "augment",
    "mixup",
    "balance_strength",
)
_COUNTS = ("epochs", "batch_size", "eval_batch_size", "validate_every")


@dataclass(frozen=True)
class TrainConfig:
    """Options of one training run.

    Every random choice of step k depends on (seed, k) alone, so a killed run continues to the same weights, bit for
    bit. The exception is `max_seconds`: the schedule then follows the clock, and so do the weights.
    """

    epochs: int = 30
    batch_size: int = 64  # over all processes
    lr: float = 1e-3  # peak of the schedule
    final_lr: float = 0.01  # share of `lr` that the cosine ends at
    warmup: float = 0.05  # share of the run in which the rate rises linearly
    weight_decay: float = 0.05  # on weights of linear and convolution layers only
    clip: float = 1.0  # largest norm of the gradient; 0 means off
    patience: int | None = 10  # validations without a better one before stopping; None means never stop early
    validate_every: int = 1  # epochs between validations
    precision: Precision = "auto"
    label_smoothing: float = 0.0
    class_weights: bool = False  # weigh classes by the inverse of their frequency
    exit_weight: float = 0.3  # share of the exit heads' mean loss
    auxiliary_weight: float = 1.0  # of the losses that parts add in their usual weight (see `Auxiliary`); 0 means off
    contrast: Contrast = "info_nce"  # retrieval: the loss, see `ContrastiveLoss`
    modality_dropout: float = 0.0  # probability that a modality is hidden
    modality_dropout_unit: DropUnit = "row"  # "batch" hides it from all rows at once, which is cheaper
    incomplete: float = 0.0  # share of the training rows that lack some of their modalities for the whole run
    balance: str = ""  # how modalities are kept from silencing each other, of `BALANCES`; empty means not at all
    balance_strength: float = 1.0  # in units of that method's usual one
    token_dropout: float = 0.0  # share of tokens left out of attention encoders, text excepted
    all_tokens: float = 0.3  # last share of a run in which no token is left out
    augment: float = 0.0  # strength of `Augment.default`; 0 is none, 1 the usual amount
    crop: float = 0.0  # images: share of height and width that may be cut away
    tint: float = 0.0  # images: how far each colour channel may be changed
    warp: float = 0.0  # series: share of the length by which moments may move
    mask_bands: float = 0.0  # audio: share of the spectrum that may be silenced
    mixup: float = 0.0  # alpha of the Beta distribution that mixes two rows, 0.2 usually; 0 means off
    repair: bool = False  # draw new partners within each class: only where a dataset's pairing is artificial
    average: float = 0.0  # decay of the exponential average of the weights; 0 means off
    freeze: tuple[str, ...] = ()  # parts that stay as they are, such as 'encoders.text.stem.backbone'
    seed: int = 0
    max_seconds: float | None = None  # wall budget; the schedule completes within it
    checkpoint_every_s: float = 60.0
    workers: int = 0  # processes that decode examples
    eval_batch_size: int = 256

    def __post_init__(self) -> None:
        for name in _COUNTS:
            self._require(name, "must be at least 1", getattr(self, name) >= 1)
        for name in _FRACTIONS:
            self._require(name, "must be in [0, 1)", 0 <= getattr(self, name) < 1)
        for name in _AT_LEAST_ZERO:
            self._require(name, "must not be negative", getattr(self, name) >= 0)
        self._require("lr", "must be positive and finite", self.lr > 0 and math.isfinite(self.lr))
        self._require("workers", "must not be negative", self.workers >= 0)
        self._require("patience", "must be at least 1, or None", self.patience is None or self.patience >= 1)
        self._require("max_seconds", "must be positive, or None", self.max_seconds is None or self.max_seconds > 0)
        self._require("precision", f"must be one of {get_args(Precision)}", self.precision in get_args(Precision))
        names = isinstance(self.freeze, tuple) and all(isinstance(name, str) and name for name in self.freeze)
        self._require("freeze", "must be a sequence of names", names)
        self._require("contrast", f"must be one of {get_args(Contrast)}", self.contrast in get_args(Contrast))
        unit = self.modality_dropout_unit
        self._require("modality_dropout_unit", f"must be one of {get_args(DropUnit)}", unit in get_args(DropUnit))

    def _require(self, name: str, rule: str, holds: bool) -> None:  # noqa: FBT001
        if not holds:
            raise RecipeError(f"TrainConfig.{name} {rule}, got {getattr(self, name)!r}")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {**dataclasses.asdict(self), "freeze": list(self.freeze)}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Self:
        """Read options by name.  Raises RecipeError on an unknown one."""
        known = {f.name for f in dataclasses.fields(cls)}
        if unknown := record.keys() - known:
            raise RecipeError(f"unknown training options {sorted(unknown)}; known are {sorted(known)}")
        freeze = record.get("freeze", ())
        return cls(**{**record, "freeze": tuple(freeze) if isinstance(freeze, list) else freeze})
