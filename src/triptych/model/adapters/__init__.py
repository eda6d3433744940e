"""What is trained beside a network that rests.  An adapter is its own file plus one line here.

`peft` is not used: it knows `torch.nn.Linear`, wraps it, and keeps what it adds in a format of its own, whereas a
network here is its config (so that it can be saved, resumed and exported without more), and its layers are `Dense`,
whose weights may live on the int8 grid.  A test compares LoRA and DoRA with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from triptych.errors import ModelError
from triptych.model.adapters.adapter import Adapter, BlocksAdapter, LayerAdapter
from triptych.model.adapters.bottleneck import Bottleneck
from triptych.model.adapters.cache_model import CacheModel
from triptych.model.adapters.conditional_prompt import ConditionalPrompt
from triptych.model.adapters.deep_prompt import DeepPrompt
from triptych.model.adapters.dora import Dora
from triptych.model.adapters.ladder import Ladder
from triptych.model.adapters.lora import Lora
from triptych.model.adapters.prompt import Prompt
from triptych.model.config import AdapterConfig

if TYPE_CHECKING:
    from triptych.model.multimodal import Multimodal

ADAPTERS: dict[str, type[Adapter]] = {
    "bottleneck": Bottleneck,
    "cache_model": CacheModel,
    "conditional_prompt": ConditionalPrompt,
    "deep_prompt": DeepPrompt,
    "dora": Dora,
    "ladder": Ladder,
    "lora": Lora,
    "prompt": Prompt,
}


def adapter_class(name: str) -> type[Adapter]:
    """An adapter by name.  Raises ModelError that lists the known ones."""
    if name not in ADAPTERS:
        raise ModelError(f"unknown adapter {name!r}; known are {sorted(ADAPTERS)}")
    return ADAPTERS[name]


def join_(model: Multimodal, config: AdapterConfig) -> None:
    """Add an adapter to a network, in place, and let all else rest but the parts that `config.also` names.

    Raises ModelError where the network has no place for it, or no such parts.
    """
    adapter_class(config.name).join_(model, config)
    names = [name for name, _ in model.named_parameters()]
    if unknown := [part for part in config.also if not any(f"{name}.".startswith(f"{part}.") for name in names)]:
        raise ModelError(
            f"no parts {unknown} to train beside the adapter; parts are {sorted(dict(model.named_children()))}"
        )
    own = {id(p) for module in model.modules() if isinstance(module, Adapter) for p in module.parameters()}
    for name, parameter in model.named_parameters():
        also = any(f"{name}.".startswith(f"{part}.") for part in config.also)
        parameter.requires_grad = also or id(parameter) in own


__all__ = [
    "ADAPTERS",
    "Adapter",
    "BlocksAdapter",
    "Bottleneck",
    "CacheModel",
    "ConditionalPrompt",
    "DeepPrompt",
    "Dora",
    "Ladder",
    "LayerAdapter",
    "Lora",
    "Prompt",
    "adapter_class",
    "join_",
]
