"""Hybrid fusion with linear cross-attention (Katharopoulos et al. 2020).  O((N + M) · dim · head_dim) time per layer.

That is 'Linear Attention' of the survey's Table 1, O((N + M) · D²); each modality's own blocks cost what their mixer
costs, so the usual one is linear as well.
"""

from __future__ import annotations

from typing import ClassVar, final

from triptych.model.fusion.cross_attention import CrossAttention, LinearCrossAttention
from triptych.model.fusion.exchange import Exchange


@final
class LinearCrossFusion(Exchange):
    """The exchange of hybrid fusion through fixed-size sums over the tokens that are read, with no map of pairs."""

    mixer: ClassVar[str] = "linear"
    attention: ClassVar[type[CrossAttention]] = LinearCrossAttention
