"""Whether a technique kept its word: what every promise of `saves` means, counted on two networks."""

from __future__ import annotations

from collections.abc import Callable

from triptych.algorithm import Technique
from triptych.model import Multimodal
from triptych.system.bundle.graphs import frozen


def stored_numbers(model: Multimodal) -> int:
    """Elements of all stored tensors."""
    return sum(tensor.numel() for tensor in model.parameters())


def stored_bytes(model: Multimodal) -> int:
    """Bytes of all tensors as they are exported, step sizes included."""
    return sum(tensor.numel() * tensor.element_size() for tensor in frozen(model).state_dict().values())


def operations(model: Multimodal) -> int:
    """Floating-point operations of one example."""
    return sum(model.flops().values())


COUNTED: dict[str, Callable[[Multimodal], int]] = {"params": stored_numbers, "size": stored_bytes, "flops": operations}
ELSEWHERE = {"latency"}  # speed belongs in bench/


def broken_promises(technique: Technique, before: Multimodal, after: Multimodal) -> list[str]:
    """Promises of `technique.saves` that are not lower after it than before."""
    broken = []
    for promise in sorted(technique.saves - ELSEWHERE):
        was, now = COUNTED[promise](before), COUNTED[promise](after)
        if now >= was:
            broken.append(f"{promise}: {was} before, {now} after")
    return broken
