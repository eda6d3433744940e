"""What has to be cut together: the units of a network, and where each one lives in its tensors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from triptych.algorithm.rebuild import Path, edited
from triptych.errors import ModelError
from triptych.model.channels import Channel
from triptych.model.config import BlockConfig, ModelConfig
from triptych.model.connectors import Connector
from triptych.model.fusion import Fusion
from triptych.model.fusion.cross_attention import CrossAttention
from triptych.model.heads import EmbeddingHead, Head
from triptych.model.mixers import Mixer
from triptych.model.multimodal import Multimodal
from triptych.model.stems import Stem

Kind = Literal["heads", "hidden", "width"]
KINDS: tuple[Kind, ...] = get_args(Kind)
_OWNERS = (Mixer, CrossAttention, Channel, Stem, Connector, Head, EmbeddingHead, Fusion)


@dataclass(frozen=True)
class Cut:
    """Where units live on one axis of one tensor: `repeats` times over, `size` entries each, from `start` on."""

    name: str
    axis: int
    size: int = 1
    repeats: int = 1
    start: int = 0

    def index(self, units: Tensor, count: int) -> Tensor:
        """Entries of some of the `count` units.  units: (kept,) → (kept, repeats · size) int64"""
        turns = torch.arange(self.repeats).unsqueeze(1) * count * self.size
        inside = (turns + torch.arange(self.size)).flatten()
        return self.start + units.unsqueeze(1) * self.size + inside


@dataclass(frozen=True)
class Group:
    """Units that may go one by one, such as the heads of one attention, with all the places that go with them.

    path: the number in the model's config that counts them, shared by groups that must stay equally many
    """

    kind: Kind
    path: Path
    owner: str
    count: int
    cuts: tuple[Cut, ...]

    @property
    def modality(self) -> str | None:
        """The modality whose encoder holds the units, None for shared parts."""
        return str(self.path[1]) if self.path[0] == "encoders" else None


def trace(model: Multimodal, *kinds: Kind) -> list[Group]:
    """Groups of all kinds, or of some.

    'heads' of attention, 'hidden' units of two-layer perceptrons (channel blocks, table stems, connectors, heads), and
    'width', the features that a residual stream carries from its stem to its readers.

    A group is found by asking which tensors would grow if its number in the config grew by one, so nothing can be
    forgotten: a new part needs no word here unless it holds units several times over (`Mixer.repeats`) or side by
    side with others (`Fusion.starts`).  Raises ModelError for a network with an adapter.
    """
    if model.config.adapter is not None:
        raise ModelError("a network with an adapter cannot be pruned; merge it, or prune before adapting")
    now = _shapes(model.config, model)
    return [
        group
        for kind, path, count in _numbers(model.config)
        if kind in (kinds or KINDS)
        for group in _groups(model, kind, path, count, now)
    ]


def _numbers(config: ModelConfig) -> Iterator[tuple[Kind, Path, int]]:
    for name, encoder in config.encoders.items():
        here: Path = ("encoders", name)
        yield "width", (*here, "dim"), encoder.dim
        yield "hidden", (*here, "stem", "hidden"), encoder.stem.hidden
        if encoder.stem.width:
            yield "width", (*here, "stem", "width"), encoder.stem.width
        yield from _block_numbers((*here, "blocks"), encoder.blocks)
        if encoder.connector is not None:
            yield "width", (*here, "connector", "dim"), encoder.connector.dim
            yield "hidden", (*here, "connector", "hidden"), encoder.connector.hidden
            yield from _block_numbers((*here, "connector", "blocks"), encoder.connector.blocks)
    if config.shared:
        yield "width", ("shared", "dim"), config.shared.dim
        yield from _block_numbers(("shared", "blocks"), config.shared.blocks)
    if config.fusion:
        yield "width", ("fusion", "dim"), config.fusion.dim
        yield from _block_numbers(("fusion", "blocks"), config.fusion.blocks)
    yield "hidden", ("head_hidden",), config.head_hidden


def _block_numbers(here: Path, blocks: tuple[BlockConfig, ...]) -> Iterator[tuple[Kind, Path, int]]:
    for number, block in enumerate(blocks):
        yield "heads", (*here, number, "heads"), block.heads
        yield "hidden", (*here, number, "hidden"), block.hidden


def _groups(model: Multimodal, kind: Kind, path: Path, count: int, now: Mapping[str, torch.Size]) -> Iterator[Group]:
    grown = _shapes(edited(model.config, path, count + 1), model)
    if grown.keys() != now.keys():
        raise ModelError(f"changing {'.'.join(map(str, path))} adds or removes tensors, so it cannot be pruned")
    cuts: dict[str, list[Cut]] = {}
    for name, shape in now.items():
        for axis, (length, longer) in enumerate(zip(shape, grown[name], strict=True)):
            if longer > length:
                owner = "" if kind == "width" else _owner(model, name)
                cuts.setdefault(owner, []).append(_cut(model, path, name, axis, longer - length))
    for owner, found in cuts.items():
        yield Group(kind, path, owner, count, tuple(found))


def _cut(model: Multimodal, path: Path, name: str, axis: int, growth: int) -> Cut:
    owner = model.get_submodule(_owner(model, name))
    layer = name.split(".")[-2] if "." in name else name
    repeats = owner.repeats.get(layer, 1) if isinstance(owner, Mixer) and axis == 0 and path[-1] == "heads" else 1
    starts = model.fusion.starts if model.fusion is not None and name == "head.up.weight" and axis == 1 else {}
    start = starts.get(str(path[1]), 0) if path[0] == "encoders" else 0
    if starts and path[0] == "shared":  # every modality's features side by side, all of the shared width
        repeats = len(starts)
    return Cut(name, axis, growth // repeats, repeats, start)


def _owner(model: Multimodal, name: str) -> str:
    """The innermost part that a tensor belongs to, such as one modality's mixer or attention; '' for other places."""
    parts = name.split(".")[:-1]
    for length in range(len(parts), 0, -1):
        prefix = ".".join(parts[:length])
        if isinstance(model.get_submodule(prefix), _OWNERS):
            return prefix
    return ""


def _shapes(config: ModelConfig, model: Multimodal) -> dict[str, torch.Size]:
    with torch.device("meta"):
        shape: nn.Module = Multimodal(config, model.schema)
    return {name: tensor.shape for name, tensor in shape.state_dict().items()}
