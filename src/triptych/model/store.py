"""Networks on disk: `model.json` (config and schema) and `model.safetensors` (weights).  Nothing is pickled."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from triptych.errors import ModelError, SchemaError
from triptych.model.config import ModelConfig
from triptych.model.multimodal import Multimodal
from triptych.schema import Schema


def save_model(model: Multimodal, folder: str | Path) -> Path:
    """Write a network to a folder, replacing what is there."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, folder / "model.safetensors")
    record = {"config": model.config.to_dict(), "schema": model.schema.to_dict()}
    (folder / "model.json").write_text(json.dumps(record, indent=1))
    return folder


def load_model(folder: str | Path) -> Multimodal:
    """Read a network in evaluation mode.  Raises ModelError when files are missing, damaged or disagree."""
    folder = Path(folder)
    try:
        record = json.loads((folder / "model.json").read_text())
        weights = load_file(folder / "model.safetensors")
        config, schema = ModelConfig.from_dict(record["config"]), Schema.from_dict(record["schema"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError, SchemaError) as error:
        raise ModelError(f"{folder} does not hold a readable model.json and model.safetensors: {error}") from error
    _check_fit(folder, config, schema, weights)
    model = Multimodal(config, schema)
    model.load_state_dict(weights)
    return model.eval()


def _check_fit(folder: Path, config: ModelConfig, schema: Schema, weights: Mapping[str, Tensor]) -> None:
    """Compare shapes before anything is allocated.  Raises ModelError."""
    with torch.device("meta"):
        wanted = {name: tensor.shape for name, tensor in Multimodal(config, schema).state_dict().items()}
    if odd := sorted(wanted.keys() ^ weights.keys()):
        raise ModelError(f"the weights in {folder} do not fit its model.json: only one of them has {odd[:6]}")
    if odd := sorted(name for name, shape in wanted.items() if weights[name].shape != shape):
        raise ModelError(f"the weights in {folder} do not fit its model.json: other sizes of {odd[:6]}")
