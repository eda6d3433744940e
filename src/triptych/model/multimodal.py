"""The network: stems and encoders → tokens per modality → connectors → fusion → head."""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from triptych.errors import ModelError, UnknownModality
from triptych.model.adapters import join_
from triptych.model.config import ModelConfig, Precision
from triptych.model.connectors import make_connector
from triptych.model.dense import Dense
from triptych.model.encoder import Encoder
from triptych.model.fusion import FUSIONS
from triptych.schema import Modality, Schema
from triptych.tokens import Batch, Tokens


@final
class Head(nn.Module):
    """Two layers from a vector to class scores, or to a value in the target's own unit."""

    def __init__(self, inputs: int, hidden: int, schema: Schema, *, precision: Precision, dropout: float) -> None:
        super().__init__()
        self.up = Dense(inputs, hidden, precision=precision)
        self.out = Dense(hidden, schema.outputs, precision="float32" if precision == "float32" else "int8_weights")
        self.dropout = nn.Dropout(dropout)
        self.center, self.scale = schema.center, schema.scale

    def forward(self, x: Tensor) -> Tensor:
        """x: (batch, inputs) → (batch, outputs)"""
        out: Tensor = self.out(self.dropout(functional.gelu(self.up(x))))
        return out if (self.center, self.scale) == (0.0, 1.0) else out * self.scale + self.center


@final
class Multimodal(nn.Module):
    """Predict from whichever modalities a batch holds.  `config` and `schema` determine every shape."""

    def __init__(self, config: ModelConfig, schema: Schema) -> None:
        super().__init__()
        if set(config.encoders) != set(schema.names):
            raise ModelError(f"encoders for {sorted(config.encoders)}, but the schema has {sorted(schema.names)}")
        if config.fusion.name not in FUSIONS:
            raise ModelError(f"unknown fusion {config.fusion.name!r}; known are {sorted(FUSIONS)}")
        self.config, self.schema = config, schema
        precision, dropout = config.precision, config.dropout
        encoders = {
            n: Encoder(schema[n], config.encoders[n], precision=precision, dropout=dropout) for n in schema.names
        }
        self.encoders = nn.ModuleDict(encoders)
        self.connectors = nn.ModuleDict()
        for name, encoder in config.encoders.items():
            if encoder.connector is not None:
                grid = encoders[name].stem.grid
                connector = make_connector(encoder, grid, precision=precision, dropout=dropout)
                self.connectors[name] = connector
                encoders[name].keep_all_tokens(unless=connector.any_tokens)
        dims = {name: config.encoders[name].width for name in schema.names}
        self.fusion = FUSIONS[config.fusion.name](dims, config.fusion, precision, dropout)
        self.head = self._head(self.fusion.width)
        self.exits = nn.ModuleDict({name: self._head(dim) for name, dim in dims.items()} if config.exits else {})
        self.votes: nn.Module | None = None  # an adapter that has a say in the output
        if config.adapter is not None:
            join_(self, config.adapter)

    def _head(self, width: int) -> Head:
        config = self.config
        return Head(width, config.head_hidden, self.schema, precision=config.precision, dropout=config.dropout)

    def forward(self, batch: Batch) -> Tensor:
        """Class logits (batch, classes), or values (batch, 1) in the target's unit."""
        return self.decide(self.encode_all(batch))

    def encode(self, name: str, raw: Tensor) -> Tokens:
        """Run one modality's encoder and connector.  raw: as in `Batch.inputs`"""
        tokens: Tokens = self.encoders[name](raw)
        return self.connectors[name](tokens) if name in self.connectors else tokens

    def encode_all(self, batch: Batch) -> dict[str, Tokens]:
        """Run the encoders of the modalities that are there.  Raises UnknownModality."""
        if unknown := batch.inputs.keys() - set(self.encoders):
            raise UnknownModality(f"no encoder for {sorted(unknown)}; this model has {sorted(self.encoders)}")
        if not batch.inputs:
            raise UnknownModality(f"a batch without inputs; this model reads any of {sorted(self.encoders)}")
        streams = {name: self.encode(name, batch.inputs[name]) for name in self.encoders if name in batch.inputs}
        for name, present in batch.present.items():
            tokens = streams[name]
            streams[name] = Tokens(tokens.x, tokens.real() & present.unsqueeze(1), tokens.weight)
        return streams

    def decide(self, streams: Mapping[str, Tokens]) -> Tensor:
        """Fuse any non-empty subset of the modalities' tokens and predict: (batch, outputs)."""
        vector = self.fusion(streams)
        out: Tensor = self.head(vector)
        return out if self.votes is None else self.votes(vector, out)

    def exit(self, name: str, tokens: Tokens) -> Tensor:
        """Predict from one modality alone: (batch, outputs).  Raises ModelError without exit heads."""
        if name not in self.exits:
            raise ModelError(f"this model has no exit head for {name!r}; build it with exits=true")
        out: Tensor = self.exits[name](tokens.mean())
        return out

    def flops(self) -> dict[str, int]:
        """Floating-point operations (a multiply-add is two) of one full example, per stage."""
        batch = example_batch(self.schema)
        streams: dict[str, Tokens] = {}
        counts: dict[str, int] = {}
        training = self.training
        self.eval()
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):  # the counter does not know the fused kernels of a CPU
            for name, raw in batch.inputs.items():
                with FlopCounterMode(display=False) as counter:
                    streams[name] = self.encode(name, raw)
                counts[f"{name}.encode"] = counter.get_total_flops()
            with FlopCounterMode(display=False) as counter:
                self.decide(streams)
        counts["decide"] = counter.get_total_flops()
        self.train(training)
        return counts

    def parameters_by_part(self) -> dict[str, int]:
        """Number of parameters per stage."""
        counts = {f"{n}.encode": sum(p.numel() for p in self._encode_parameters(n)) for n in self.encoders}
        votes = [] if self.votes is None else self.votes.parameters()
        decide = [*self.fusion.parameters(), *self.head.parameters(), *votes]
        exits = {f"{n}.exit": sum(p.numel() for p in h.parameters()) for n, h in self.exits.items()}
        return {**counts, "decide": sum(p.numel() for p in decide), **exits}

    def _encode_parameters(self, name: str) -> list[nn.Parameter]:
        connector = [self.connectors[name]] if name in self.connectors else []
        return [p for part in (self.encoders[name], *connector) for p in part.parameters()]


def example_batch(schema: Schema, rows: int = 1) -> Batch:
    """A made batch of full-length inputs, for tracing and counting."""
    return Batch({modality.name: example_input(modality, rows) for modality in schema.modalities})


def example_input(modality: Modality, rows: int = 1) -> Tensor:
    """One made raw input of full length, as in `Batch.inputs`."""
    match modality.kind:
        case "image":
            return torch.full((rows, modality.height, modality.width, modality.channels), 127, dtype=torch.uint8)
        case "audio":
            return torch.linspace(-0.5, 0.5, rows * modality.max_samples).reshape(rows, -1)
        case "text":
            return torch.ones(rows, modality.max_tokens, dtype=torch.int64)
        case "series":
            return torch.zeros(rows, modality.frames, modality.channels)
        case "table":
            return torch.zeros(rows, len(modality.center))
