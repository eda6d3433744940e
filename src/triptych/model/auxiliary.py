"""What parts of a network add to its training loss, besides the task's."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


class Auxiliary(nn.Module):
    """A part with a training loss of its own, such as a divergence, a balance of experts or a commitment to codes.

    auxiliary: scalar, in the part's usual weight; set by every forward pass while training, None otherwise
    """

    auxiliary: Tensor | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Without the loss: its graph cannot be copied, and a copy has not run yet."""
        return {**self.__dict__, "auxiliary": None}


def take_auxiliary(model: nn.Module) -> list[Tensor]:
    """The losses that the last forward pass left in the parts of a network, which are then forgotten: scalars."""
    parts = [part for part in model.modules() if isinstance(part, Auxiliary)]
    found = [part.auxiliary for part in parts if part.auxiliary is not None]
    for part in parts:
        part.auxiliary = None
    return found
