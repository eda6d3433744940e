"""One linear layer per expert over rows that are sorted by expert."""

from __future__ import annotations

from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from triptych.model.config import Precision
from triptych.model.dense import GridLayer, quantize

_ALIGNED_BYTES = 16  # what PyTorch's grouped product asks of every row


def grouped_matmul(rows: Tensor, weight: Tensor, counts: Tensor) -> Tensor:
    """Each row times the transposed weights of its expert.

    rows: (rows, inputs), the first counts[0] for expert 0 and so on, none left over;  counts: (experts,) int64
    weight: (experts, outputs, inputs) → (rows, outputs)

    One call of `torch.nn.functional.grouped_mm`, which walks over the experts outside Python and multiplies what is
    there and no padding.  Sizes that it does not take are filled up with zeros.
    """
    device = rows.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else rows.dtype
    rows, weight = rows.to(dtype), weight.to(dtype)
    outputs, inputs = weight.shape[1:]
    multiple = _ALIGNED_BYTES // rows.element_size()
    wider, longer = -inputs % multiple, -outputs % multiple
    if wider or longer:
        rows, weight = functional.pad(rows, (0, wider)), functional.pad(weight, (0, wider, 0, longer))
    ends = counts.cumsum(0).to(torch.int32)
    out = functional.grouped_mm(rows.contiguous(), weight.contiguous().transpose(1, 2), offs=ends)
    return out[:, :outputs] if longer else out


def _grouped_flops(rows: Any, weight: Any, *_: Any, **__: Any) -> int:
    """Operations of a grouped product (a multiply-add is two): every row meets one expert."""
    return 2 * int(rows[0]) * int(weight[-2]) * int(weight[-1])


GROUPED_FLOPS = {torch.ops.aten._grouped_mm: _grouped_flops}  # noqa: SLF001, what torch's flop counter does not know


@final
class GroupedDense(GridLayer):
    """A linear layer per expert, perhaps on the int8 grid: one step size per expert and output, one for all inputs.

    weight: (experts, outputs, inputs), bias: (experts, outputs)
    """

    def __init__(self, experts: int, inputs: int, outputs: int, *, precision: Precision = "float32") -> None:
        super().__init__(precision)
        self.weight = nn.Parameter(torch.empty(experts, outputs, inputs))
        self.bias = nn.Parameter(torch.zeros(experts, outputs))
        nn.init.trunc_normal_(self.weight, std=min(0.05, inputs**-0.5))

    def extra_repr(self) -> str:
        """Shape and precision."""
        experts, outputs, inputs = self.weight.shape
        return f"{experts} × ({inputs}, {outputs}), {self.precision}"

    def forward(self, rows: Tensor, counts: Tensor) -> Tensor:
        """rows: (rows, inputs) sorted by expert, counts: (experts,) int64 rows of each → (rows, outputs)"""
        if self.precision == "int8":
            rows = self._on_input_grid(rows)
        weight = self.weight if self.precision == "float32" else self._on_weight_grid()
        out = grouped_matmul(rows, weight, counts)
        return out + self.bias.to(out.dtype).repeat_interleave(counts, dim=0, output_size=rows.shape[0])

    def weight_scale(self) -> Tensor:
        """Symmetric step size per expert and output: (experts, outputs)."""
        return self.weight.detach().abs().amax(dim=2).clamp(min=1e-8) / self.most()

    def _on_weight_grid(self) -> Tensor:
        scale = self.weight_scale().flatten()
        flat = self.weight.flatten(0, 1)
        gridded: Tensor = quantize(flat, scale, torch.zeros_like(scale, dtype=torch.int8), 0)
        return gridded.view_as(self.weight)
