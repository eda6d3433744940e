"""Pretrained backbones: from folders on disk to stems of a network.

found = read_backbone("all-MiniLM-L6-v2", take="mean")
schema = found.tokenized(data.schema, "text", max_tokens=48)
model = build("late_fusion", schema, modalities={"text": {**found.stem, "depth": 0}})
load_backbone(model, "text", found)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from triptych.errors import ModelError
from triptych.model.backbones import BACKBONES, Backbone
from triptych.model.backbones.folder import open_folder
from triptych.model.backbones.words import TextBackbone
from triptych.model.config import BackboneConfig, Take
from triptych.model.multimodal import Multimodal
from triptych.model.stems.pretrained import PretrainedStem
from triptych.schema import Kind, Modality, Schema


@dataclass(frozen=True)
class Pretrained:
    """A backbone at hand.

    tensors:   weights, named as the family's own
    tokenizer: the folder's tokenizer.json, empty where it has none
    """

    config: BackboneConfig
    tensors: Mapping[str, Tensor] = field(repr=False)
    tokenizer: str = field(default="", repr=False)

    @property
    def kind(self) -> Kind:
        """Of the modalities that it reads."""
        return BACKBONES[self.config.family].kind

    @property
    def stem(self) -> dict[str, Any]:
        """What `build` needs to know of a modality that uses this backbone."""
        return {"form": "pretrained", "backbone": self.config}

    def tokenized(self, schema: Schema, name: str, *, max_tokens: int = 64) -> Schema:
        """A schema whose text modality `name` uses the backbone's tokenizer.

        max_tokens: longer texts are cropped, the special tokens counted.  Raises ModelError.
        """
        family = BACKBONES[self.config.family]
        if not issubclass(family, TextBackbone) or schema[name].kind != "text":
            raise ModelError(f"{self.config.family!r} and {name!r} must both be of text to share a tokenizer")
        if not self.tokenizer:
            raise ModelError("the backbone came without a tokenizer.json; put it into its folder and read it again")
        sizes = family.read_sizes(self.config.sizes)
        document = family.document(self.tokenizer, sizes, max_tokens=max_tokens)
        changed = dataclasses.replace(
            schema[name], tokenizer=document, vocabulary=sizes.vocabulary, max_tokens=max_tokens
        )
        modalities = tuple(changed if m.name == name else m for m in schema.modalities)
        return dataclasses.replace(schema, modalities=modalities)


def read_backbone(
    folder: str | Path, *, kind: Kind | None = None, image: tuple[int, int] | None = None, take: Take = "all"
) -> Pretrained:
    """Read a Hugging Face folder: config.json, model.safetensors and perhaps tokenizer.json.

    kind:  which half to read of a network that has several, such as CLIP
    image: height and width in pixels to run at; None means the folder's own
    take:  which of its tokens go on, see `BackboneConfig`
    Raises ModelError on an unknown family and on weights that do not fit the config.
    """
    found = open_folder(folder)
    known = {name: b for name, b in BACKBONES.items() if found.config.get("model_type") in b.model_types}
    chosen = {name: b for name, b in known.items() if kind in (None, b.kind)}
    if len(chosen) != 1:
        types = sorted({one for b in BACKBONES.values() for one in b.model_types})
        what = f"model_type {found.config.get('model_type')!r}" + (f" of kind {kind!r}" if kind else "")
        remedy = f"say kind=…, one of {sorted(b.kind for b in chosen.values())}" if chosen else f"known are {types}"
        raise ModelError(f"{folder}: cannot choose a backbone for {what}; {remedy}")
    ((name, family),) = chosen.items()
    sizes, tensors = family.read(found, image)
    return checked(
        Pretrained(BackboneConfig(name, sizes, take), tensors, found.text("tokenizer.json")), source=str(folder)
    )


def load_backbone(model: Multimodal, name: str, pretrained: Pretrained) -> None:
    """Copy a backbone's weights into the stem of modality `name`, in place.  Raises ModelError if they do not fit."""
    stem = model.encoders[name].stem if name in model.encoders else None
    if not isinstance(stem, PretrainedStem) or model.config.encoders[name].stem.backbone != pretrained.config:
        remedy = f"build the network with modalities={{{name!r}: pretrained.stem}}"
        raise ModelError(f"the stem of {name!r} is not made for this backbone; {remedy}")
    device = next(stem.parameters()).device
    stem.backbone.load_state_dict({key: tensor.to(device) for key, tensor in pretrained.tensors.items()})


def checked(pretrained: Pretrained, *, source: str) -> Pretrained:
    """The same, if its tensors are those of its config.  Raises ModelError that names the first that are not."""
    family = BACKBONES[pretrained.config.family]
    with torch.device("meta"):
        backbone = family(_stand_in(family), family.read_sizes(pretrained.config.sizes), "float32")
    check_tensors({name: tensor.shape for name, tensor in backbone.state_dict().items()}, pretrained.tensors, source)
    return pretrained


def check_tensors(wanted: Mapping[str, torch.Size], given: Mapping[str, Tensor], source: str) -> None:
    """Raise ModelError unless names and shapes agree."""
    if odd := sorted(wanted.keys() ^ given.keys()):
        raise ModelError(f"the weights of {source} do not fit its config: only one of them has {odd[:6]}")
    for name, shape in wanted.items():
        if given[name].shape != shape:
            have = f"{tuple(given[name].shape)}, expected {tuple(shape)}"
            raise ModelError(f"the weights of {source} do not fit its config: {name} is {have}")


def _stand_in(family: type[Backbone]) -> Modality:
    return Modality(
        "any", family.kind, height=8, width=8, channels=3, sample_rate=16_000, max_samples=16_000, vocabulary=1
    )
