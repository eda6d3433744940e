"""What every adapter is, and the two places that most have: a dense layer, or an encoder's blocks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor, nn

from triptych.errors import ModelError
from triptych.model.channels import CHANNELS
from triptych.model.config import AdapterConfig, EncoderConfig, Precision
from triptych.model.dense import Dense, DenseAdapter
from triptych.model.encoder import Blocks
from triptych.model.mixers import MIXERS
from triptych.tokens import Batch, Tokens

if TYPE_CHECKING:
    from triptych.model.multimodal import Multimodal


class Adapter(nn.Module, ABC):
    """A small part that is trained while the network around it rests.

    merges: whether its change can be folded into the network's weights
    """

    merges: ClassVar[bool] = False

    @classmethod
    @abstractmethod
    def join_(cls, model: Multimodal, config: AdapterConfig) -> None:
        """Put adapters of this class into a network.  Raises ModelError where it has no place for them."""

    @classmethod
    def begin(
        cls,
        model: Multimodal,  # noqa: ARG003
        config: AdapterConfig,
        data: Iterable[Batch] | None,
    ) -> tuple[AdapterConfig, dict[str, Tensor]]:
        """What an adapter takes from a network, which it has not joined yet, and from data.

        Returns the config with its sizes, and tensors to start from, by their names in the adapted network.
        """
        if data is not None:
            raise ModelError(f"adapter {config.name!r} learns by training and takes no data; only 'cache_model' does")
        return config, {}


class LayerAdapter(Adapter, DenseAdapter, ABC):
    """An adapter of one dense layer; every target gets its own.

    usual: the targets where the config names none, heads left out
    """

    usual: ClassVar[tuple[str, ...]] = ("query_key_value", "query", "key_value", "out", "up", "down")

    @abstractmethod
    def __init__(self, inputs: int, outputs: int, config: AdapterConfig, precision: Precision) -> None:
        super().__init__()

    @classmethod
    def join_(cls, model: Multimodal, config: AdapterConfig) -> None:
        """Give every target an adapter.  Raises ModelError when a target is the name of no layer."""
        layers = targets(model, config.targets or cls.usual, heads=bool(config.targets))
        missing = [target for target in config.targets if not any(_within(name, target) for name in layers)]
        if missing or not layers:
            known = sorted({name.rpartition(".")[2] for name in targets(model, ("",), heads=True)})
            what = f"{missing or list(cls.usual)} for {config.name!r}"
            raise ModelError(f"no dense layers {what}; their names end in {known}")
        for layer in layers.values():
            outputs, inputs = layer.weight.shape
            layer.adapter = cls(inputs, outputs, config, layer.precision)


def targets(model: nn.Module, parts: tuple[str, ...], *, heads: bool) -> dict[str, Dense]:
    """Dense layers whose dotted name holds one of the parts; those of heads only if asked for."""
    return {
        name: layer
        for name, layer in model.named_modules()
        if isinstance(layer, Dense)
        and any(_within(name, part) for part in parts)
        and (heads or name.partition(".")[0] not in ("head", "exits"))
    }


def _within(name: str, part: str) -> bool:
    return not part or f".{part}." in f".{name}."


class BlocksAdapter(Adapter, ABC):
    """An adapter that runs the blocks of an encoder.

    adds_tokens: whether the blocks see tokens more than the stem gave
    """

    adds_tokens: ClassVar[bool] = False

    @abstractmethod
    def __init__(self, dim: int, depth: int, config: AdapterConfig, precision: Precision) -> None:
        super().__init__()

    @abstractmethod
    def forward(self, tokens: Tokens, blocks: Blocks) -> Tokens:
        """tokens.x: (batch, tokens, dim), as the stem gives them → (batch, tokens, dim), as the blocks would"""

    @classmethod
    def join_(cls, model: Multimodal, config: AdapterConfig) -> None:
        """Give every target modality an adapter; without targets, every one that has blocks."""
        encoders = model.config.encoders
        if unknown := set(config.targets) - encoders.keys():
            raise ModelError(f"no modalities {sorted(unknown)} for {config.name!r}; this model has {sorted(encoders)}")
        names = config.targets or tuple(name for name, encoder in encoders.items() if encoder.blocks)
        if not names:
            raise ModelError(f"no encoder has blocks for {config.name!r} to work on; choose 'lora', or add blocks")
        for name in names:
            if why := cls._obstacle(encoders[name]):
                raise ModelError(f"{config.name!r} cannot join the encoder of {name!r}, {why}")
            depth = len(encoders[name].blocks)
            model.encoders[name].around = cls(encoders[name].dim, depth, config, model.config.precision)

    @classmethod
    def _obstacle(cls, encoder: EncoderConfig) -> str:
        if not encoder.blocks:
            return "which has no blocks; name other modalities as targets"
        if any(block.reduce for block in encoder.blocks):
            return "whose blocks reduce tokens; reduce after training, or adapt by 'lora'"
        if not cls.adds_tokens:
            return ""
        bound = {b.mixer for b in encoder.blocks if not MIXERS[b.mixer].any_tokens}
        bound |= {b.channel for b in encoder.blocks if not CHANNELS[b.channel].any_tokens}
        return f"whose blocks ({', '.join(sorted(bound))}) know the places of tokens; adapt by 'lora'" if bound else ""
