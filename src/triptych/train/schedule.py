"""What changes over a run: the learning rate, the parameter groups and the randomness of each step."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import nn
from torch.optim import AdamW

from triptych.model.dense import Embedding
from triptych.train.config import Precision, TrainConfig

_MASK = (1 << 64) - 1
_WIDE_ENOUGH = 256  # below, casting costs what the faster product saves (measured: bench/train_precision.py)


def rate(progress: float, *, warmup: float, final: float) -> float:
    """Share of the peak learning rate: a linear rise, then half a cosine down to `final`.

    progress: share of the run that is over when the step ends, in [0, 1]
    """
    if progress < warmup:
        return progress / warmup
    done = min((progress - warmup) / max(1 - warmup, 1e-9), 1.0)
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * done))


def step_seed(*numbers: int) -> int:
    """Mix integers such as (seed, step) into one seed in [0, 2**63), by SplitMix64 (Steele et al. 2014)."""
    state = 0
    for number in numbers:
        state = (state + number + 0x9E3779B97F4A7C15) & _MASK
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
        state ^= state >> 31
    return state >> 1


def decays(network: nn.Module) -> set[str]:
    """Names of the parameters that weight decay acts on: matrices of linear and convolution layers.

    Norms, biases, embeddings, positions and learned queries are left alone.
    """
    tables = {id(m.weight) for m in network.modules() if isinstance(m, nn.Embedding | Embedding)}
    return {
        name
        for name, p in network.named_parameters()
        if p.ndim >= 2 and name.endswith("weight") and id(p) not in tables
    }


def optimizer_for(network: nn.Module, config: TrainConfig) -> AdamW:
    """AdamW (Loshchilov and Hutter 2019) over the parameters that require a gradient."""
    decayed = decays(network)
    trained = [(name, p) for name, p in network.named_parameters() if p.requires_grad]
    groups = [
        {"params": [p for name, p in trained if name in decayed], "weight_decay": config.weight_decay},
        {"params": [p for name, p in trained if name not in decayed], "weight_decay": 0.0},
    ]
    return AdamW([g for g in groups if g["params"]], lr=config.lr, betas=(0.9, 0.98), fused=True)


def resolve_precision(precision: Precision, network: nn.Module, device: torch.device) -> torch.dtype:
    """Type that matrix products run in; "auto" picks bfloat16 only where it is native and pays.

    On a CPU with AVX512-BF16 a transformer of width 128 trains 0.9 to 1.1 times as fast under autocast, one of width
    256 1.4 times as fast, so the choice depends on the width of the network.
    """
    if precision != "auto":
        return torch.bfloat16 if precision == "bfloat16" else torch.float32
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.get_device_capability(device) >= (8, 0) else torch.float32
    wide = _typical_width(network) >= _WIDE_ENOUGH
    return torch.bfloat16 if wide and _native_bfloat16() else torch.float32


def _typical_width(network: nn.Module) -> float:
    """Mean of the narrower side of each linear layer, weighted by its size."""
    parameters, names = dict(network.named_parameters()), decays(network)
    layers = [parameters[name] for name in names if parameters[name].ndim == 2]
    return sum(min(p.shape) * p.numel() for p in layers) / max(sum(p.numel() for p in layers), 1)


def _native_bfloat16() -> bool:
    info = Path("/proc/cpuinfo")
    flags = info.read_text() if info.is_file() else ""
    return "avx512_bf16" in flags or "amx_bf16" in flags
