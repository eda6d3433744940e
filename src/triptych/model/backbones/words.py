"""What text backbones share: their sizes, their tables and the tokenizer that belongs to them."""

from __future__ import annotations

import json
from abc import ABC
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from triptych.data.decode import tokenizer_of
from triptych.errors import ModelError
from triptych.model.backbones.backbone import Backbone
from triptych.model.backbones.folder import Folder
from triptych.model.backbones.layer import check_layers
from triptych.model.config import Precision, make
from triptych.model.dense import Embedding
from triptych.schema import Kind, Modality


@dataclass(frozen=True)
class TextSizes:
    """Sizes of a text transformer.  vocabulary: token ids, the padding 0 among them;  positions: tokens at most"""

    vocabulary: int = 30_522
    positions: int = 512
    width: int = 768
    depth: int = 12
    heads: int = 12
    hidden: int = 3072
    activation: str = "gelu"
    epsilon: float = 1e-12
    projection: int = 0  # width of a last projection; 0 means none

    def __post_init__(self) -> None:
        check_layers(width=self.width, depth=self.depth, heads=self.heads, activation=self.activation)


class TextBackbone(Backbone, ABC):
    """Reads (batch, tokens) int64, 0 is padding.

    frame: the special tokens that a text starts and ends with
    shift: what our ids are above the backbone's own, 1 where its id 0 is a word and not padding
    """

    kind: ClassVar[Kind] = "text"
    frame: ClassVar[tuple[str, str]]
    shift: ClassVar[int] = 0

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
    def document(cls, tokenizer: str, *, max_tokens: int) -> str:
        """The folder's tokenizer as the schema wants it: long texts are cropped before the last special token is set.

        tokenizer: a tokenizer.json.  Raises ModelError unless it frames a text as the backbone expects.
        """
        try:
            record = json.loads(tokenizer)
            record["padding"] = None
            crop = {"direction": "Right", "max_length": max_tokens, "strategy": "LongestFirst", "stride": 0}
            record["truncation"] = crop
            text = json.dumps(record, separators=(",", ":"), ensure_ascii=False)
            found = tokenizer_of(text).encode("a")
        except Exception as error:  # the tokenizers library raises plain Exception
            raise ModelError(f"the folder's tokenizer.json cannot be read: {error}; fetch it again") from error
        if len(found.tokens) < 2 or (found.tokens[0], found.tokens[-1]) != cls.frame:
            raise ModelError(f"the tokenizer must put a text between {cls.frame}, got {found.tokens} for 'a'")
        return text


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
