"""Hybrid fusion (Lu et al. 2019, ViLBERT).  O(Σ N · (all − N) · dim) time per layer, beside each modality's own block.

That is 'Dense Cross-Attention' of the survey's Table 1, O(N · M · D), in both directions.
"""

from __future__ import annotations

from typing import ClassVar, final

from triptych.model.fusion.cross_attention import CrossAttention, ExactCrossAttention
from triptych.model.fusion.exchange import Exchange


@final
class HybridFusion(Exchange):
    """Cross-attention and blocks within each modality take turns, so that what is read is worked on and read again.

    The paper's two streams become any number, each of which reads all others as one sequence.
    """

    mixer: ClassVar[str] = "attention"
    attention: ClassVar[type[CrossAttention]] = ExactCrossAttention
