"""One of the widths that elastic blocks were trained for."""

from __future__ import annotations

import torch

from triptych.algorithm.weights.slicing import keep_units
from triptych.algorithm.weights.trace import trace
from triptych.errors import ModelError
from triptych.model.channels import ElasticMlp
from triptych.model.multimodal import Multimodal


def at_width(model: Multimodal, share: float) -> Multimodal:
    """The network whose elastic blocks have only the first `share` of their hidden channels, the others cut off.

    Raises ModelError for a share outside (0, 1], and without elastic blocks.
    """
    if not 0 < share <= 1:
        raise ModelError(f"the share of an elastic block must be in (0, 1], got {share}")
    groups = [group for group in trace(model, "hidden") if isinstance(model.get_submodule(group.owner), ElasticMlp)]
    if not groups:
        raise ModelError("this network has no elastic blocks; build it with channel='elastic_mlp'")
    return keep_units(model, {group: torch.arange(max(1, round(group.count * share))) for group in groups})
