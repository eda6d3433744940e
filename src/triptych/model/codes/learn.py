"""Codes of given vectors, such as the features of an encoder that is already trained."""

from __future__ import annotations

import torch
from torch import Tensor

from triptych.errors import ModelError
from triptych.model.codes.residual import ResidualCodebooks


def learn_codes(
    vectors: Tensor,
    *,
    levels: int = 4,
    entries: int = 256,
    epochs: int = 10,
    batch_size: int = 1024,
    decay: float = 0.9,
    seed: int = 0,
) -> ResidualCodebooks:
    """Residual codebooks of some vectors, in evaluation mode: k-means in small batches, all levels at once.

    Nothing but the running means learns, so this needs no optimizer.  Before every epoch, words that hardly anything
    chooses move to random vectors.

    vectors: (vectors, dim) float; entries: words per level, at most as many as vectors.  Raises ModelError.
    """
    if vectors.ndim != 2 or not vectors.is_floating_point() or not vectors.isfinite().all():
        raise ModelError(f"expected (vectors, dim) finite numbers, got {tuple(vectors.shape)} {vectors.dtype}")
    if not 0 < entries <= len(vectors):
        raise ModelError(f"{len(vectors)} vectors cannot teach {entries} words; give more vectors or fewer entries")
    generator = torch.Generator().manual_seed(seed)
    codes = ResidualCodebooks(levels, entries, vectors.shape[1], decay=decay).to(vectors.device).train()
    with torch.no_grad():
        for _ in range(epochs):
            order = torch.randperm(len(vectors), generator=generator).to(vectors.device)
            codes.revive(vectors[order[: max(batch_size, entries)]], generator)
            for batch in torch.split(order, batch_size):
                codes(vectors[batch])
    return codes.eval()
