"""A bank for what is missing and an expert for what is there (Yun et al. 2024, Flex-MoE).

O(modalities · dim²) time, after pooling: linear in tokens, off the rows of the survey's Table 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

import torch
from torch import Tensor, nn

from triptych.errors import ModelError
from triptych.model.config import FusionConfig, Precision
from triptych.model.experts import ExpertMlps, Routing
from triptych.model.fusion.fusion import Fusion
from triptych.model.fusion.vectors import Vectors
from triptych.tokens import Tokens

_MOST = 6  # modalities: 63 experts


@final
class MissingBankFusion(Fusion):
    """Mean over the modalities of v_m + expert(v_m), with one expert for each combination that may be observed.

    v_m is a modality's projected vector, and where it is missing a learnt one that depends on what is there.  There are
    2^modalities − 1 combinations, of which every row costs one.  The paper also trains a router on complete rows; here
    the expert of the complete combination takes its place.

    bank: (combinations, modalities, dim)
    """

    def __init__(self, dims: Mapping[str, int], config: FusionConfig, precision: Precision, dropout: float) -> None:
        super().__init__(dims, config, precision, dropout)
        if len(dims) > _MOST:
            raise ModelError(
                f"missing_bank keeps an expert per combination: at most {_MOST} modalities, got {len(dims)}"
            )
        self.width = config.dim
        self.vectors = Vectors(dims, config.dim, precision)
        self.bank = nn.Parameter(torch.randn(2 ** len(dims) - 1, len(dims), config.dim) * 0.02)
        self.experts = ExpertMlps(2 ** len(dims) - 1, config.dim, config.dim, precision)

    def forward(self, streams: Mapping[str, Tokens]) -> Tensor:
        """streams: any non-empty subset of the modalities → (batch, width)"""
        vectors, exists = self.vectors(streams)
        observed = combination(exists.squeeze(-1))
        index = observed.clamp(min=0)
        filled = torch.where(exists, vectors, self.bank[index].transpose(0, 1)).transpose(0, 1)
        batch, modalities, _ = filled.shape
        expert = index.unsqueeze(1).expand(-1, modalities).flatten()
        token = torch.arange(batch * modalities, device=expert.device)
        scores = filled.new_zeros(batch * modalities, len(self.bank))
        gate = torch.ones_like(token, dtype=filled.dtype)
        kept = (observed >= 0).unsqueeze(1).expand(-1, modalities).flatten()
        added = self.experts(filled.flatten(0, 1), Routing(token, expert, gate, kept, scores))
        out: Tensor = (filled + added.view_as(filled)).mean(dim=1)
        return out


def combination(exists: Tensor) -> Tensor:
    """Number of what each row holds, from 0 for the first modality alone; −1 for a row without any.

    exists: (modalities, batch) bool → (batch,) int64
    """
    powers = 2 ** torch.arange(len(exists), device=exists.device)
    return (exists * powers.unsqueeze(1)).sum(dim=0) - 1
