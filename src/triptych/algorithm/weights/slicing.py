"""Remove units for good: a new config and smaller tensors."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from triptych.algorithm.rebuild import edited, rebuild
from triptych.algorithm.weights.trace import Group
from triptych.model.multimodal import Multimodal


def kept_units(count: int, fraction: float, *, multiple: int = 1) -> int:
    """Units that stay: the nearest number, at least one, but fewer than `count` when `fraction` is below one.

    A multiple of `multiple` where that is possible, since kernels work on so many at a time.
    """
    if fraction == 1 or count == 1:
        return count
    nearest = round(count * fraction / multiple) * multiple
    if nearest >= count:
        nearest -= multiple
    return nearest if nearest > 0 else min(max(1, round(count * fraction)), count - 1)


def keep_units(model: Multimodal, kept: Mapping[Group, Tensor]) -> Multimodal:
    """A network of the kept units only.  kept: (units,) sorted int64 per group, equally many on the same config path"""
    config, tensors = model.config, model.state_dict()
    stays: dict[tuple[str, int], Tensor] = {}
    for group, units in kept.items():
        config = edited(config, group.path, len(units))
        gone = torch.ones(group.count, dtype=torch.bool)
        gone[units] = False
        for cut in group.cuts:
            length = tensors[cut.name].shape[cut.axis]
            mask = stays.setdefault((cut.name, cut.axis), torch.ones(length, dtype=torch.bool))
            mask[cut.index(gone.nonzero().squeeze(1), group.count).flatten()] = False
    for (name, axis), mask in stays.items():
        index = mask.nonzero().squeeze(1).to(tensors[name].device)
        tensors[name] = tensors[name].index_select(axis, index)
    return rebuild(model, config, tensors)
