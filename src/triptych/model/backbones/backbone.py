"""What every pretrained backbone is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor, nn

from triptych.model.backbones.folder import Folder
from triptych.model.config import Precision
from triptych.schema import Kind, Modality
from triptych.tokens import Tokens


class Backbone(nn.Module, ABC):
    """An encoder that was trained elsewhere: raw input → tokens of width `width`; preprocessing is inside.

    kind:        of the modalities that it reads
    model_types: values of 'model_type' in a Hugging Face config.json that `read` understands
    width:       features of a token
    grid:        rows and columns of the tokens, or their number; without the leading ones
    leading:     tokens without a place before the grid, such as a class token
    """

    kind: ClassVar[Kind]
    model_types: ClassVar[frozenset[str]] = frozenset()
    width: int
    grid: tuple[int, ...]
    leading: int = 0

    @abstractmethod
    def __init__(self, modality: Modality, sizes: Any, precision: Precision) -> None:
        super().__init__()

    @classmethod
    @abstractmethod
    def read_sizes(cls, sizes: Mapping[str, Any]) -> Any:
        """Check plain values and make the dataclass that `__init__` takes.  Raises ModelError."""

    @classmethod
    @abstractmethod
    def read(cls, folder: Folder, image: tuple[int, int] | None) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Plain sizes and tensors, named as this module's own, of a Hugging Face folder.

        image: height and width in pixels to run at; None means the folder's own.  Raises ModelError.
        """

    @abstractmethod
    def forward(self, raw: Tensor) -> Tokens:
        """raw: as in `Batch.inputs` → tokens.x: (batch, tokens, width)"""
