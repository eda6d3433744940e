"""What text backbones share: their sizes, their tables and the tokenizer that belongs to them."""

from __future__ import annotations

from abc import ABC
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from triptych.errors import ModelError
from triptych.model.backbones.backbone import Backbone
from triptych.model.backbones.folder import Folder
from triptych.model.backbones.layer import LayerSizes
from triptych.model.backbones.tokenizer import fitted
from triptych.model.config import Precision, make
from triptych.model.dense import Embedding
from triptych.schema import Kind, Modality


@dataclass(frozen=True)
class TextSizes(LayerSizes):
    """Sizes of a text transformer.  vocabulary: token ids, the padding 0 among them;  positions: tokens at most"""

    vocabulary: int = 30_522
    positions: int = 512
    projection: int = 0  # width of a last projection; 0 means none


class TextBackbone(Backbone, ABC):
    """Reads (batch, tokens) int64, 0 is padding.

    frame: the special tokens that a text starts and ends with; an empty first one means none
    shift: what our ids are above the backbone's own, 1 where its id 0 is a word and not padding
    fill:  whether every text fills all places
    """

    kind: ClassVar[Kind] = "text"
    frame: ClassVar[tuple[str, str]]
    shift: ClassVar[int] = 0
    fill: ClassVar[bool] = False

    def __init__(self, modality: Modality, sizes: TextSizes, precision: Precision) -> None:
        super().__init__(modality, sizes, precision)
        if not 0 < modality.vocabulary <= sizes.vocabulary or modality.max_tokens > sizes.positions:
            given = f"{modality.name!r} has {modality.vocabulary} ids and up to {modality.max_tokens} tokens"
            raise ModelError(
                f"the backbone knows {sizes.vocabulary} ids and {sizes.positions} places, {given}; "
                "give the schema the backbone's tokenizer with Pretrained.tokenized"
            )
        self.width = sizes.projection or sizes.width
        self.grid = (modality.max_tokens,)
        self.embed = Embedding(sizes.vocabulary, sizes.width, precision=precision)
        self.position = Embedding(sizes.positions, sizes.width, precision=precision)

    @classmethod
    def read_sizes(cls, sizes: Mapping[str, Any]) -> TextSizes:
        """Check plain values.  Raises ModelError."""
        return make(TextSizes, sizes)

    @classmethod
    def plain(cls, folder: Folder, *, activation: str, projection: int = 0) -> dict[str, Any]:
        """`TextSizes` of a config.json as plain values."""
        return {
            "vocabulary": folder.number("vocab_size") + cls.shift,
            "positions": folder.number("max_position_embeddings"),
            "width": folder.number("hidden_size"),
            "depth": folder.number("num_hidden_layers"),
            "heads": folder.number("num_attention_heads"),
            "hidden": folder.number("intermediate_size"),
            "activation": activation,
            "epsilon": folder.number("layer_norm_eps", 1e-12),
            "projection": projection,
        }

    @staticmethod
    def no_image(image: tuple[int, int] | None) -> None:
        """Raise ModelError if a size in pixels was asked for."""
        if image is not None:
            raise ModelError(f"a text backbone has no image size, got image={image}")

    @classmethod
    def document(cls, tokenizer: str, sizes: TextSizes, *, max_tokens: int) -> str:
        """The folder's tokenizer as the schema wants it.  Raises ModelError, see `tokenizer.fitted`.

        tokenizer: a tokenizer.json
        """
        if not 2 < max_tokens <= sizes.positions or (cls.fill and max_tokens != sizes.positions):
            wanted = f"{sizes.positions}" if cls.fill else f"from 3 to {sizes.positions}"
            raise ModelError(f"max_tokens of this backbone must be {wanted}, got {max_tokens}")
        return fitted(tokenizer, max_tokens=max_tokens, frame=cls.frame, shift=cls.shift, fill=cls.fill)


def layer_names(depth: int, where: str, layer: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    """The folder's names of all layers' weights and biases by ours.

    where: of a layer in the folder, with {} for its number;  layer: the folder's names of its parts by ours
    """
    return {
        f"layers.{number}.{ours}.{end}": tuple(f"{where.format(number)}{name}.{end}" for name in theirs)
        for number in range(depth)
        for ours, theirs in layer.items()
        for end in ("weight", "bias")
    }
