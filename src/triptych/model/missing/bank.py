"""A bank of learnt vectors for what is missing, indexed by what was observed (Yun et al. 2024, Flex-MoE)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

import torch
from torch import Tensor, nn

from triptych.errors import ModelError
from triptych.model.missing.fill import Fill

MOST = 8  # modalities: the bank has 2^modalities rows for each


@final
class BankFill(Fill):
    """For each modality a learnt token per combination of the modalities that the row holds.

    Row Σ 2^i over the held modalities, in the order of `dims`.  A row of the bank learns only from training rows of
    its combination; one that never occurred stays zero, which is `ZeroFill`.
    """

    def __init__(self, dims: Mapping[str, int]) -> None:
        super().__init__(dims)
        if len(dims) > MOST:
            raise ModelError(
                f"the bank has a row per combination, of at most {MOST} modalities; got {len(dims)}: use "
                "fill='placeholder'"
            )
        count = 2 ** len(dims)
        self.vectors = nn.ParameterDict({name: nn.Parameter(torch.zeros(count, dim)) for name, dim in dims.items()})

    def vector(self, name: str, exists: Tensor) -> Tensor:
        """exists: (batch, modalities) bool → (batch, dim)"""
        power = 2 ** torch.arange(exists.shape[1], device=exists.device)
        found: Tensor = self.vectors[name][(exists.long() * power).sum(dim=1)]
        return found
