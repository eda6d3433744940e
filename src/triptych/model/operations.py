"""Counting floating-point operations; they are not seconds."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from triptych.model.experts import GROUPED_FLOPS

T = TypeVar("T")


def counted(run: Callable[[], T]) -> tuple[T, int]:
    """What a call gives, without gradients, and its operations; a multiply-add is two."""
    counter = FlopCounterMode(display=False, custom_mapping=GROUPED_FLOPS)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:  # it does not know the fused kernels of a CPU
        value = run()
    return value, counter.get_total_flops()
