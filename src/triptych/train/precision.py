"""Which numbers and which attention kernel a run computes with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from triptych.model.multimodal import example_batch
from triptych.train.config import Precision
from triptych.train.evaluate import in_eval
from triptych.train.schedule import decays

if TYPE_CHECKING:
    from triptych.model.multimodal import Multimodal

_WIDE_ENOUGH = 96  # below, casting costs what the faster product saves
_FEW_TOKENS = 512  # above, the attention maps no longer fit the cache


class Arithmetic:
    """How one network is computed in training, chosen once per run; bench/train_precision.py measures the choices.

    On a CPU with native bfloat16 the gradient of fused attention is slow: wide transformers on few tokens train fastest
    in bfloat16 with plain attention, narrow ones gain little.  docs/results.md shows the seconds.
    """

    def __init__(self, precision: Precision, model: Multimodal, device: torch.device) -> None:
        self.device = device
        self.dtype = resolve_precision(precision, model, device)
        half_on_cpu = self.dtype == torch.bfloat16 and device.type == "cpu"
        self.plain_attention = half_on_cpu and count_tokens(model) <= _FEW_TOKENS

    @contextmanager
    def active(self) -> Iterator[None]:
        """Compute this way inside the block."""
        if self.dtype == torch.float32:
            yield
            return
        with torch.autocast(self.device.type, self.dtype):
            if not self.plain_attention:
                yield
                return
            with sdpa_kernel(SDPBackend.MATH):
                yield


def resolve_precision(precision: Precision, model: Multimodal, device: torch.device) -> torch.dtype:
    """Type that matrix products run in; "auto" picks bfloat16 only where it is native and pays.

    A network that learns on the int8 grid stays in float32, because bfloat16 cannot hold the grid's rounding.
    """
    if precision != "auto":
        return torch.bfloat16 if precision == "bfloat16" else torch.float32
    if model.config.precision != "float32":
        return torch.float32
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.get_device_capability(device) >= (8, 0) else torch.float32
    return torch.bfloat16 if _typical_width(model) >= _WIDE_ENOUGH and _native_bfloat16() else torch.float32


def count_tokens(model: Multimodal) -> int:
    """Tokens of one full example, over all modalities."""
    device = next(model.parameters()).device
    with in_eval(model), torch.no_grad():
        streams = model.encode_all(example_batch(model.schema).to(device))
    return sum(tokens.x.shape[1] for tokens in streams.values())


def _typical_width(model: Multimodal) -> float:
    """Mean of the narrower side of each linear layer, weighted by its size."""
    parameters, names = dict(model.named_parameters()), decays(model)
    layers = [parameters[name] for name in names if parameters[name].ndim == 2]
    return sum(min(p.shape) * p.numel() for p in layers) / max(sum(p.numel() for p in layers), 1)


def _native_bfloat16() -> bool:
    info = Path("/proc/cpuinfo")
    flags = info.read_text() if info.is_file() else ""
    return "avx512_bf16" in flags or "amx_bf16" in flags
