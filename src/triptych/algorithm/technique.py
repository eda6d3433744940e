"""What a technique is, and how a recipe of them is applied."""

from __future__ import annotations

import copy
import dataclasses
import enum
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from triptych.errors import RecipeError
from triptych.model.multimodal import Multimodal
from triptych.tokens import Batch
from triptych.train.config import TrainConfig

if TYPE_CHECKING:
    from triptych.data.dataset import Dataset
    from triptych.train.progress import Watch


class Needs(enum.Enum):
    """What a technique has to be given besides the network."""

    NOTHING = "nothing"
    CALIBRATION = "calibration"  # a few batches
    TRAINING = "training"  # a dataset, and the time to learn from it


@dataclass(frozen=True)
class Range:
    """Numbers that a search may try for a knob, both ends included."""

    low: float
    high: float
    log: bool = False


Space = Mapping[str, Range | tuple[str, ...]]


@dataclass(frozen=True)
class Context:
    """What every technique of a recipe may look at.

    original: the network before the first technique; the teacher, never changed
    data:     a dataset, or batches where calibration is all that is needed
    train:    options of training, where a technique trains; its own knobs override them
    teachers: networks like the original, trained from other seeds, that teach along with it
    """

    original: Multimodal
    data: Dataset | Sequence[Batch] | None = None
    seed: int = 0
    progress: Watch | None = None
    train: TrainConfig | None = None
    teachers: tuple[Multimodal, ...] = ()

    def calibration(self, batches: int, *, batch_size: int = 32) -> list[Batch]:
        """The first batches of the training split in the seed's order.  Raises RecipeError without data."""
        if self.data is None:
            raise RecipeError("this technique needs calibration data; pass `data` to compress")
        if isinstance(self.data, Sequence):
            found = list(self.data[:batches])
        else:
            from triptych.data.loader import batches as load

            data = self.data
            found = list(islice(load(data.train, self.original.schema, batch_size=batch_size, seed=self.seed), batches))
        if not found:
            raise RecipeError("calibration needs at least one batch; the data has none")
        return [batch.only(*self.original.schema.names) for batch in found]

    def dataset(self) -> Dataset:
        """The dataset to train on.  Raises RecipeError when there is none."""
        if self.data is None or isinstance(self.data, Sequence):
            raise RecipeError("this technique trains; pass the whole dataset as `data`, not only batches or nothing")
        return self.data

    def generator(self, stream: int) -> torch.Generator:
        """Random numbers of their own for each `stream`, fixed by the seed."""
        return torch.Generator().manual_seed((self.seed * 1_000_003 + stream) % 2**63)


@dataclass(frozen=True)
class Technique(ABC):
    """One way to make a network cheaper.  Fields are its knobs."""

    saves: ClassVar[frozenset[str]]  # what it promises to lower: "params", "size", "flops" or "latency"
    space: ClassVar[Space] = {}  # what a search may try, by knob

    @property
    def needs(self) -> Needs:
        """What `apply` has to be given, with these knobs."""
        return Needs.NOTHING

    @abstractmethod
    def apply(self, model: Multimodal, context: Context) -> Multimodal:
        """A cheaper network; `model` and `context.original` stay as they are."""

    def require(self, knob: str, rule: str, *, holds: bool) -> None:
        """Raise RecipeError unless a knob's value obeys its rule."""
        if not holds:
            raise RecipeError(f"{type(self).__name__}.{knob} must be {rule}, got {getattr(self, knob)!r}")

    def require_number(self, knob: str, rule: str, low: float, high: float, *, whole: bool = False) -> None:
        """Raise RecipeError unless a knob is a number in [low, high]."""
        value: Any = getattr(self, knob)
        right = isinstance(value, int) if whole else isinstance(value, int | float)
        self.require(knob, rule, holds=right and not isinstance(value, bool) and low <= value <= high)

    def require_fraction(self) -> None:
        """Raise RecipeError unless the field `fraction` is in [0.01, 1]."""
        self.require_number("fraction", "in [0.01, 1], the share that stays", 0.01, 1)

    def require_names(self, knob: str) -> None:
        """Raise RecipeError unless a knob is None or a tuple of names without repetition."""
        value: Any = getattr(self, knob)
        names = isinstance(value, tuple) and all(isinstance(name, str) for name in value)
        right = value is None or (names and value and len(set(value)) == len(value))
        self.require(knob, "None or a tuple of different names", holds=bool(right))


def compress(
    original: Multimodal,
    recipe: Sequence[Technique],
    data: Dataset | Sequence[Batch] | None = None,
    *,
    seed: int = 0,
    progress: Watch | None = None,
    train: TrainConfig | None = None,
) -> Multimodal:
    """Apply techniques in order and return a new network; `original` is not changed.

    The result's `config.recipe` lists what was done.  Raises RecipeError when a technique lacks what it needs.
    """
    context = Context(original, data, seed, progress, train)
    for technique in recipe:
        if not isinstance(technique, Technique):
            raise RecipeError(f"a recipe is a list of techniques, got {technique!r}")
        check_needs(technique, context)
    model = copy.deepcopy(original)
    for technique in recipe:
        result = technique.apply(model, context)
        done = (*model.config.recipe, repr(technique))
        result.config = dataclasses.replace(result.config, recipe=done)
        model = result
    return model.eval()


def check_needs(technique: Technique, context: Context) -> None:
    """Raise RecipeError when a technique lacks the data that it needs."""
    if technique.needs is Needs.CALIBRATION and context.data is None:
        raise RecipeError(f"{technique!r} needs calibration data; pass `data` to compress")
    if technique.needs is Needs.TRAINING:
        try:
            context.dataset()
        except RecipeError as error:
            raise RecipeError(f"{technique!r} cannot run: {error}") from error
