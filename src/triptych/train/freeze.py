"""Parts of a network that training leaves as they are, such as a pretrained backbone."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from triptych.errors import RecipeError


def freeze_(network: nn.Module, prefixes: Sequence[str]) -> list[nn.Parameter]:
    """Fix every parameter under the prefixes and put their modules into evaluation mode; returns what was fixed.

    prefixes: names of modules or parameters, such as 'encoders.text.stem.backbone'.  Raises RecipeError on one that
    names nothing, and if nothing is left to train.
    """
    parameters = {name: p for name, p in network.named_parameters() if p.requires_grad}
    for prefix in prefixes:
        if not any(under(name, prefix) for name, _ in network.named_parameters()):
            tops = sorted({name.rpartition(".")[0] for name in parameters})[:6]
            raise RecipeError(f"freeze names {prefix!r}, which has no parameters; names start like {tops}")
    fixed = [p for name, p in parameters.items() if any(under(name, prefix) for prefix in prefixes)]
    if prefixes and len(fixed) == len(parameters):
        raise RecipeError(f"freeze={list(prefixes)} leaves nothing to train; name fewer parts")
    for parameter in fixed:
        parameter.requires_grad = False
    for name, module in network.named_modules():
        if any(under(name, prefix) for prefix in prefixes):
            module.eval()
    return fixed


def under(name: str, prefix: str) -> bool:
    """Whether a dotted name is `prefix` or lies below it."""
    return name == prefix or name.startswith(f"{prefix}.")
