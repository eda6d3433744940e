"""The inverted bottleneck (Sandler et al. 2018, MobileNetV2; Li et al. 2021, LocalViT) along the tokens."""

from __future__ import annotations

from typing import ClassVar, final

from torch import Tensor, nn
from torch.nn import functional

from triptych.model.channels.channel import Channel
from triptych.model.config import BlockConfig, Precision
from triptych.model.dense import Dense


@final
class InvertedBottleneck(Channel):
    """dim → hidden, a depthwise convolution over `kernel` tokens in a row, hidden → dim.

    O(tokens · kernel · hidden) on top of the perceptron's products.  Tokens that are not real count as zeros.
    """

    any_tokens: ClassVar[bool] = False

    def __init__(self, dim: int, block: BlockConfig, precision: Precision) -> None:
        super().__init__(dim, block, precision)
        self.up = Dense(dim, block.hidden, precision=precision)
        kernel = (1, block.kernel)  # a one-row image convolves faster than a series
        self.conv = nn.Conv2d(block.hidden, block.hidden, kernel, padding=(0, block.kernel // 2), groups=block.hidden)
        self.down = Dense(block.hidden, dim, precision=precision)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """x: (batch, tokens, dim), mask: (batch, tokens) bool → (batch, tokens, dim)"""
        hidden = functional.gelu(self.up(x))
        hidden = hidden if mask is None else hidden * mask.unsqueeze(-1)
        hidden = self.conv(hidden.transpose(1, 2).unsqueeze(2)).squeeze(2).transpose(1, 2)
        out: Tensor = self.down(functional.gelu(hidden))
        return out
