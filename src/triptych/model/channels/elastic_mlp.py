"""A perceptron of several widths (Yu et al. 2019, Slimmable Neural Networks; Devvrit et al. 2024, MatFormer)."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor
from torch.nn import functional

from triptych.model.channels.channel import Channel
from triptych.model.config import BlockConfig, Precision
from triptych.model.dense import Dense

WIDTHS = (0.25, 0.5, 0.75, 1.0)


@final
class ElasticMlp(Channel):
    """dim → hidden → dim, of which the first hidden channels alone are a narrower perceptron of their own.

    Every training step draws one of `WIDTHS` and silences the channels beyond it, so that all of these widths are
    trained together; the whole is used otherwise.  `triptych.algorithm.at_width` cuts a trained network to one,
    which is then what is exported.
    """

    def __init__(self, dim: int, block: BlockConfig, precision: Precision) -> None:
        super().__init__(dim, block, precision)
        self.up = Dense(dim, block.hidden, precision=precision)
        self.down = Dense(block.hidden, dim, precision=precision)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:  # noqa: ARG002
        """x: (batch, tokens, dim) → (batch, tokens, dim)"""
        hidden = functional.gelu(self.up(x))
        if self.training:
            width = WIDTHS[int(torch.randint(len(WIDTHS), ()))]
            hidden = hidden * (torch.arange(hidden.shape[-1], device=x.device) < width * hidden.shape[-1])
        out: Tensor = self.down(hidden)
        return out
