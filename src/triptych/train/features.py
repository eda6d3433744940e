"""Frozen backbones computed once per row: training then reads their tokens instead of running them in every epoch.

    rest, features = precompute(model, data, ["image", "text"])
    trained = put_back(model, fit(rest, features, config))

or in one call, `fit_on_features`.  The result is that of training with the backbones frozen, but for augmentation of
their inputs, which there is none of.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from triptych.data.dataset import Dataset, Split
from triptych.data.loader import batches
from triptych.errors import TrainingError
from triptych.model.config import ModelConfig
from triptych.model.multimodal import Multimodal, example_input
from triptych.model.stems.pretrained import PretrainedStem
from triptych.schema import Modality, Schema
from triptych.train.augment import Augment, Augmentation, RePair, defaults
from triptych.train.config import TrainConfig
from triptych.train.evaluate import in_eval
from triptych.train.loop import DEFAULT, fit

if TYPE_CHECKING:
    from triptych.data.feed import Table
    from triptych.tokens import Tokens

Array = NDArray[Any]
Watch = Callable[[str, int, int], None]


def precompute(
    model: Multimodal,
    data: Dataset,
    names: Sequence[str],
    *,
    batch_size: int = 32,
    folder: str | Path | None = None,
    progress: Watch | None = None,
) -> tuple[Multimodal, Dataset]:
    """The network without some modalities' backbones, and the data whose values for these are the backbones' tokens.

    names:    modalities whose stem is pretrained; the tokens are those that `BackboneConfig.take` lets through
    folder:   where to keep the tokens in files, mapped into memory; None keeps them in memory
    progress: called with the split's name, the rows that are done and all its rows
    Both are ordinary: the network's encoders read series of shape (tokens, width).  Raises TrainingError.
    """
    stems = {name: _stem(model, name) for name in names}
    schema = _rest_schema(model, stems)
    source = _Source(model, schema, stems, batch_size, folder, progress)
    tables: dict[int, Table] = {}
    splits = {}
    for split in data.splits.values():
        if id(split.table) not in tables:
            sharing = [other for other in data.splits.values() if other.table is split.table]
            tables[id(split.table)] = source.table(sharing)
        splits[split.name] = dataclasses.replace(split, table=tables[id(split.table)], schema=schema)
    rest = Multimodal(_rest_config(model, stems), schema)
    tensors = {name: t for name, t in model.state_dict().items() if not _is_left_out(name, names)}
    rest.load_state_dict({name: tensor.clone() for name, tensor in tensors.items()})
    return rest.to(next(model.parameters()).device).train(model.training), Dataset(schema, splits, data.about)


def put_back(model: Multimodal, rest: Multimodal) -> Multimodal:
    """A copy of `model` with the trained parts of `rest`, in evaluation mode.  Raises TrainingError if they differ."""
    names = [name for name in model.schema.names if rest.schema[name] != model.schema[name]]
    tensors = model.state_dict()
    wanted = {name for name in tensors if not _is_left_out(name, names)}
    given = rest.state_dict()
    if wanted != given.keys():
        odd = sorted(wanted ^ given.keys())[:6]
        raise TrainingError(f"the parts do not belong together, only one has {odd}; pass what precompute returned")
    whole = Multimodal(model.config, model.schema).to(next(model.parameters()).device)
    whole.load_state_dict({**tensors, **given})
    return whole.eval()


def fit_on_features(
    model: Multimodal,
    data: Dataset,
    config: TrainConfig = DEFAULT,
    *,
    names: Sequence[str] | None = None,
    augment: Augmentation | None = None,
    batch_size: int = 32,
    folder: str | Path | None = None,
) -> Multimodal:
    """Train a copy of `model` whose pretrained stems are frozen, each row going through them once.

    names:   modalities to do so with; None means all with a pretrained stem
    augment: changes to batches of tokens; None means those that `config` asks for, the other modalities' only
    folder:  where to keep the tokens while training; None keeps them in memory
    """
    chosen = [n for n in model.schema.names if isinstance(model.encoders[n].stem, PretrainedStem)]
    chosen = chosen if names is None else list(names)
    rest, features = precompute(model, data, chosen, batch_size=batch_size, folder=folder)
    if augment is None:
        others = [m for m in rest.schema.modalities if m.name not in chosen and config.augment]
        steps: list[Augmentation] = [RePair()] if config.repair else []
        augment = Augment((*steps, *(step for m in others for step in defaults(m, config.augment))))
    return put_back(model, fit(rest, features, config, augment=augment))


def _stem(model: Multimodal, name: str) -> PretrainedStem:
    stem = model.encoders[name].stem if name in model.encoders else None
    if not isinstance(stem, PretrainedStem):
        raise TrainingError(f"the stem of {name!r} is not pretrained; name modalities that have a backbone")
    return stem


def _is_left_out(tensor: str, names: Sequence[str]) -> bool:
    return tensor.startswith(tuple(f"encoders.{name}.stem.backbone." for name in names))


def _rest_schema(model: Multimodal, stems: dict[str, PretrainedStem]) -> Schema:
    def changed(modality: Modality) -> Modality:
        if modality.name not in stems:
            return modality
        stem = stems[modality.name]
        width = stem.backbone.width
        return Modality(modality.name, "series", modality.column, frames=stem.tokens, channels=width)

    return dataclasses.replace(model.schema, modalities=tuple(map(changed, model.schema.modalities)))


def _rest_config(model: Multimodal, stems: dict[str, PretrainedStem]) -> ModelConfig:
    config, encoders = model.config, dict(model.config.encoders)
    device = next(model.parameters()).device
    for name, stem in stems.items():
        with in_eval(stem), torch.no_grad():
            mask = stem.features(example_input(model.schema[name]).to(device)).mask is not None
        form = dataclasses.replace(config.encoders[name].stem, form="features", backbone=None, mask=mask)
        encoders[name] = dataclasses.replace(config.encoders[name], stem=form)
    return dataclasses.replace(config, encoders=encoders)


@dataclasses.dataclass(frozen=True)
class _Source:
    """Where tokens come from and where they go.  schema: of the rest, whose series they are"""

    model: Multimodal
    schema: Schema
    stems: dict[str, PretrainedStem]
    batch_size: int
    folder: str | Path | None
    progress: Watch | None

    def table(self, splits: Sequence[Split]) -> Table:
        """The splits' common table with the tokens of every modality in `stems`."""
        table = splits[0].table
        values = {name: self._room(table, self.schema[name]) for name in self.stems}
        with in_eval(self.model), torch.inference_mode():
            for split in splits:
                self._fill(split.with_schema(self.model.schema.only(*self.stems)), values)
        for name, array in values.items():
            table = table.providing(self.schema[name], array)
        return table

    def _room(self, table: Table, modality: Modality) -> Array:
        shape = (len(table), modality.frames, modality.channels)
        if self.folder is None:
            return np.full(shape, np.nan, np.float32)
        Path(self.folder).mkdir(parents=True, exist_ok=True)
        path = Path(self.folder) / f"{table.name}.{modality.name}.npy"
        return np.lib.format.open_memmap(path, "w+", np.float32, shape)

    def _fill(self, split: Split, values: dict[str, Array]) -> None:
        device, done = next(self.model.parameters()).device, 0
        for batch in batches(split, batch_size=self.batch_size, seed=0, shuffle=False):
            rows = split.numbers[done : done + len(batch)]
            for name, raw in batch.inputs.items():
                stem = self.stems[name]
                values[name][rows] = _with_gaps(stem.features(raw.to(device)), stem.tokens)
            done += len(batch)
            if self.progress is not None:
                self.progress(split.name, done, len(split))


def _with_gaps(tokens: Tokens, count: int) -> Array:
    """Features with NaN where a token is not real: (batch, count, width) float32."""
    x = tokens.x.float()
    if tokens.mask is not None:
        x = x.masked_fill(~tokens.mask.unsqueeze(-1), torch.nan)
    padded: Array = np.full((len(x), count, x.shape[-1]), np.nan, np.float32)
    padded[:, : x.shape[1]] = x.cpu().numpy()
    return padded
