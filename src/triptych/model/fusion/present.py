"""What a row holds: missing modalities get no share, and several sequences become one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from triptych.tokens import Tokens


def shares(parts: Sequence[Tokens]) -> Tensor:
    """Equal parts of one for the modalities that a row holds, zero for the others: (modalities, batch).

    A row that holds none gets zeros only.
    """
    exists = torch.stack([tokens.some().squeeze(1) for tokens in parts]).to(parts[0].x.dtype)
    return exists / exists.sum(dim=0).clamp(min=1)


def concat(parts: Sequence[Tokens]) -> Tokens:
    """One sequence after the other.  x: (batch, tokens, dim) each → (batch, Σ tokens, dim)"""
    return Tokens(
        torch.cat([tokens.x for tokens in parts], dim=1),
        None if all(tokens.mask is None for tokens in parts) else torch.cat([tokens.real() for tokens in parts], dim=1),
        None
        if all(tokens.weight is None for tokens in parts)
        else torch.cat([tokens.weights() for tokens in parts], dim=1),
    )


def balanced_mean(parts: Sequence[Tokens]) -> Tensor:
    """Mean of each modality's tokens, then of the modalities that the row holds: (batch, dim)."""
    return (torch.stack([tokens.mean() for tokens in parts]) * shares(parts).unsqueeze(-1)).sum(dim=0)
