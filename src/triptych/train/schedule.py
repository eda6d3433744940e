"""What changes over a run: the learning rate, the parameter groups and the randomness of each step."""

from __future__ import annotations

import math

from torch import nn
from torch.optim import AdamW

from triptych.model.dense import Embedding
from triptych.train.config import TrainConfig

_MASK = (1 << 64) - 1


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
