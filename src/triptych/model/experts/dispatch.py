"""Send each token to its experts and add up what they answer.

Only the chosen pairs of a token and an expert are computed, and all of them: no capacity, so that nothing overflows and
neither padding nor the rest of a batch changes a token's result.

In PyTorch the pairs are sorted by expert and multiplied group by group in one call (`grouped_matmul`).  A graph gets,
for the same sorted rows, one Split whose sizes are the experts' counts, two Gemm with a Gelu between them for each
expert, and one Concat; sizes are known at run time only, so that pairs which are left out are not executed and an
expert without rows costs the start of its nodes alone.  Other ways that were weighed for at most 256 tokens at batch 1:

  batched MatMul over (experts, capacity, dim)   multiplies padding, experts · capacity / pairs times as much, or drops
                                                 tokens; ONNX Runtime packs a constant matrix for its kernels when it
                                                 loads, but not a stack of them, and would pack all of it every time
  gathering weights per row or per tile of rows  copies more bytes of weights than it multiplies
  Loop or Scan over the experts                  starts a subgraph per expert, with weights that are not packed
  If per expert                                  the same, and no saving against a product of no rows

The number of nodes grows with the experts, which `bench/experts.py` measures.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional

from triptych.model.config import Precision
from triptych.model.dense import quantize
from triptych.model.experts.grouped import GroupedDense, grouped_matmul
from triptych.model.experts.routing import Routing


@final
class ExpertMlps(nn.Module):
    """Two-layer perceptrons with a Gaussian error linear unit, of which every token meets the chosen ones.

    hidden: width of one of them
    """

    def __init__(self, experts: int, dim: int, hidden: int, precision: Precision) -> None:
        super().__init__()
        self.up = GroupedDense(experts, dim, hidden, precision=precision)
        self.down = GroupedDense(experts, hidden, dim, precision=precision)

    def forward(self, x: Tensor, routing: Routing) -> Tensor:
        """Σ gate · expert(token) over the pairs that are worked on.

        x: (batch · tokens, dim) → (batch · tokens, dim), zero for a token without any
        """
        token, gate, counts = sorted_pairs(routing)
        if routing.kept is not None:
            working = int(counts.sum())
            token, gate = token[:working], gate[:working]
        out = torch.zeros_like(x)
        if not len(token):
            return out
        hidden = functional.gelu(self.up(x.index_select(0, token), counts))
        answers = self.down(hidden, counts) * gate.unsqueeze(1)
        return out.index_add(0, token, answers.to(out.dtype))


def sorted_pairs(routing: Routing) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens and gates in the order of `Routing.by_expert`, and its counts: (pairs,), (pairs,), (experts,)."""
    order, counts = routing.by_expert()
    return routing.token.index_select(0, order), routing.gate.index_select(0, order), counts


@final
class ExpertMlpsGraph(nn.Module):
    """`ExpertMlps` ready for export: every matrix apart, transposed, and as integers where it lives on a grid."""

    def __init__(self, experts: ExpertMlps) -> None:
        super().__init__()
        layers = (experts.up, experts.down)
        parts = [_matrices(layer) for layer in layers]
        tensors = [one for matrices in zip(*parts, strict=True) for matrix in matrices for one in matrix]
        self.weights = nn.ParameterList(nn.Parameter(tensor, requires_grad=False) for tensor in tensors)
        whole = experts.up.precision == "int8"
        grids = [number for layer in layers for number in layer.input_grid()] if whole else []
        self.grids = nn.ParameterList(nn.Parameter(number, requires_grad=False) for number in grids)

    def forward(self, x: Tensor, routing: Routing) -> Tensor:
        """x: (batch · tokens, dim) → (batch · tokens, dim)"""
        whole = routing.kept is None
        out: Tensor = expert_mlps(x, *sorted_pairs(routing), list(self.weights), list(self.grids), whole)
        return out


def _matrices(layer: GroupedDense) -> list[list[Tensor]]:
    """What each expert of a layer multiplies with and adds: [matrix, bias] or [integers, scale, zero, bias]."""
    matrices = layer.weight.detach().transpose(1, 2)
    biases = layer.bias.detach()
    if layer.precision == "float32":
        return [[m.contiguous().clone(), b.clone()] for m, b in zip(matrices, biases, strict=True)]
    scales = layer.weight_scale()
    whole = (matrices / scales.unsqueeze(1)).round().clamp(-127, 127).to(torch.int8)
    return [
        [m.contiguous().clone(), s.clone(), torch.zeros_like(s, dtype=torch.int8), b.clone()]
        for m, s, b in zip(whole, scales, biases, strict=True)
    ]


@torch.library.custom_op("triptych::expert_mlps", mutates_args=())
def expert_mlps(  # noqa: PLR0917 (operators take their tensors by position)
    x: Tensor,
    token: Tensor,
    gate: Tensor,
    counts: Tensor,
    weights: Sequence[Tensor],
    grids: Sequence[Tensor],
    whole: bool,  # noqa: FBT001
) -> Tensor:
    """What `ExpertMlps` computes, as one operator that the exporter writes out.

    x: (tokens, dim); token, gate: (pairs,) sorted by expert, counts: (experts,) pairs of each, the rest is left out;
    weights: of each expert in turn, first layer and second: matrix (inputs, outputs), where it is of integers its scale
    and zero point, and bias; grids: scale and zero point of the inputs of both layers, or nothing; whole: that no pair
    is left out → (tokens, dim)
    """
    working = len(token) if whole else int(counts.sum())
    rows = x[token[:working]]
    each = len(weights) // len(counts)
    for layer in range(2):
        rows = functional.gelu(rows) if layer else rows
        rows = quantize(rows, grids[2 * layer], grids[2 * layer + 1], -1) if grids else rows
        matrix, *scale, bias = (
            torch.stack(list(weights[i::each])) for i in range(layer * each // 2, (layer + 1) * each // 2)
        )
        if scale:
            matrix = matrix.to(torch.float32) * scale[0].unsqueeze(1)
        rows = grouped_matmul(rows, matrix.transpose(1, 2), counts) + bias.repeat_interleave(counts, dim=0)
    return torch.zeros_like(x).index_add(0, token[:working], rows * gate[:working].unsqueeze(1))


@expert_mlps.register_fake
def _(  # noqa: PLR0917
    x: Tensor,
    token: Tensor,  # noqa: ARG001
    gate: Tensor,  # noqa: ARG001
    counts: Tensor,  # noqa: ARG001
    weights: Sequence[Tensor],  # noqa: ARG001
    grids: Sequence[Tensor],  # noqa: ARG001
    whole: bool,  # noqa: ARG001, FBT001
) -> Tensor:
    return torch.empty_like(x)
