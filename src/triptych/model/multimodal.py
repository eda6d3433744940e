"""The network: stems and encoders → tokens per modality → connectors → fusion → head.

Between the stems and the blocks may stand a gate, which decides row by row how much of each modality goes on.  For
retrieval an embedding of each modality takes the place of the fusion.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, final

import torch
from torch import Tensor, nn

from triptych.errors import ModelError, UnknownModality
from triptych.model.adapters import join_
from triptych.model.config import ModelConfig
from triptych.model.connectors import make_connector
from triptych.model.encoder import Encoder
from triptych.model.fusion import FUSIONS, Fusion
from triptych.model.gates import GATES, Gate, Look
from triptych.model.heads import Head, PairHead
from triptych.model.missing import FILLS, Fill
from triptych.model.operations import counted
from triptych.model.shared import Shared
from triptych.schema import Modality, Schema
from triptych.select import keep_counts
from triptych.tokens import Batch, Tokens


@final
class Multimodal(nn.Module):
    """Predict from whichever modalities a batch holds.  `config` and `schema` determine every shape.

    A network for retrieval is a dual encoder: its config has no fusion, and a `PairHead` stands where fusion and head
    stand otherwise.  Everything before and around them is the same: encoders, token reductions, precision, stages.  One
    side alone is then what an early exit is elsewhere, an answer from one modality: `exit` gives its embedding.
    """

    def __init__(self, config: ModelConfig, schema: Schema) -> None:
        super().__init__()
        if set(config.encoders) != set(schema.names):
            raise ModelError(f"encoders for {sorted(config.encoders)}, but the schema has {sorted(schema.names)}")
        if (config.fusion is None) != (schema.task == "retrieval"):
            raise ModelError(
                f"retrieval needs a network without fusion, and other tasks one with it: build('dual_encoder', …) for "
                f"retrieval only; the task is {schema.task}, the fusion {config.fusion and config.fusion.name}"
            )
        if config.fusion is not None and config.fusion.name not in FUSIONS:
            raise ModelError(f"unknown fusion {config.fusion.name!r}; known are {sorted(FUSIONS)}")
        if config.fill and (config.fusion is None or config.fill not in FILLS):
            raise ModelError(f"a fill stands before a fusion and is one of {sorted(FILLS)}, got {config.fill!r}")
        self.config, self.schema = config, schema
        precision, dropout = config.precision, config.dropout
        after = config.shared.blocks if config.shared else ()
        encoders = {
            n: Encoder(schema[n], config.encoders[n], precision=precision, dropout=dropout, after=after)
            for n in schema.names
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
        self.shared = Shared(dims, config.shared, precision, dropout) if config.shared else None
        dims = dict.fromkeys(dims, config.shared.dim) if config.shared else dims
        self.fusion: Fusion | None = None
        self.fill: Fill | None = FILLS[config.fill](dims) if config.fill else None
        self.head: Head | PairHead
        exits: dict[str, Head] = {}
        if config.fusion is None:
            sizes = (config.head_hidden, config.embedding)
            self.head = PairHead(schema.pair, dims, *sizes, precision=precision, dropout=dropout)
        else:
            self.fusion = FUSIONS[config.fusion.name](dims, config.fusion, precision, dropout)
            self.head = self._head(self.fusion.width)
            exits = {name: self._head(dim) for name, dim in dims.items()} if config.exits else {}
        self.exits = nn.ModuleDict(exits)
        self.gate = self._gate(encoders)
        self.votes: nn.Module | None = None  # an adapter that has a say in the output
        if config.adapter is not None:
            join_(self, config.adapter)

    @property
    def outputs(self) -> int:
        """Width of the output: one per class, one value, or the embeddings of both sides."""
        return self.schema.outputs or 2 * self.config.embedding

    @property
    def alone(self) -> tuple[str, ...]:
        """Modalities that `exit` answers from on their own: those with an exit head, or both sides of a pair."""
        return self.schema.names if self.fusion is None else tuple(self.exits)

    def _head(self, width: int) -> Head:
        config = self.config
        return Head(width, config.head_hidden, self.schema, precision=config.precision, dropout=config.dropout)

    def _gate(self, encoders: Mapping[str, Encoder]) -> Gate | None:
        """The gate that the config asks for.  Raises ModelError where tokens cannot be left out."""
        gate = self.config.gate
        if gate is None:
            return None
        if gate.name not in GATES:
            raise ModelError(f"unknown gate {gate.name!r}; known are {sorted(GATES)}")
        bound = [
            n for n, e in encoders.items() if not e.any_tokens or any(b.reduce for b in self.config.encoders[n].blocks)
        ]
        bound += [name for name, connector in self.connectors.items() if not connector.any_tokens]
        if bound or self.fusion is None:
            raise ModelError(
                "a gate needs a fusion, and encoders and connectors that read any subset of tokens and reduce none by "
                f"themselves; use attention as the mixer of {sorted(bound) or 'a network with a fusion'}"
            )
        dims = {name: self.config.encoders[name].dim for name in encoders}
        return GATES[gate.name](dims, {name: e.stem.tokens for name, e in encoders.items()}, gate)

    def forward(self, batch: Batch) -> Tensor:
        """Class logits (batch, classes), values (batch, 1) in the target's unit, or for retrieval two unit vectors side
        by side, the query's first (batch, 2 · embedding).
        """
        return self.decide(self.encode_all(batch))

    def encode(self, name: str, raw: Tensor) -> Tokens:
        """Run one modality's encoder and connector, and the blocks that all share, on all of its tokens.

        raw: as in `Batch.inputs`
        """
        if self.gate is not None:
            return self.go_on(name, self.look(name, raw).tokens)
        return self._connect(name, self.encoders[name](raw))

    def look(self, name: str, raw: Tensor, present: Tensor | None = None) -> Look:
        """What the gate sees of one modality.  present: (batch,) bool.  Raises ModelError without a gate."""
        if self.gate is None:
            raise ModelError("this network has no gate; give its config one")
        return self.gate.look(name, self.begin(name, raw, present))

    def begin(self, name: str, raw: Tensor, present: Tensor | None = None) -> Tokens:
        """Stem tokens of one modality, none of them real where a row lacks it.  present: (batch,) bool"""
        encoder: Any = self.encoders[name]
        tokens: Tokens = encoder.stem(raw)
        if present is None:
            return tokens
        return Tokens(tokens.x, tokens.real() & present.unsqueeze(1), tokens.weight)

    def go_on(self, name: str, start: Tokens) -> Tokens:
        """What follows a modality's stem.  start.x: (batch, tokens, dim), any subset of the stem's tokens"""
        encoder: Any = self.encoders[name]
        return self._connect(name, encoder.go_on(start))

    def encode_kept(self, looks: Mapping[str, Look], keep: Tensor) -> dict[str, Tokens]:
        """Go on with some tokens of each modality.  keep: (batch, modalities) int64, as the gate's `choose` gives"""
        names = tuple(self.encoders)
        return {name: self.encode_some(name, look, keep[:, names.index(name)]) for name, look in looks.items()}

    def encode_some(self, name: str, look: Look, keep: Tensor) -> Tokens:
        """Go on with some tokens of one modality.  keep: (batch,) int64, how many of each row's"""
        return self.go_on(name, keep_counts(look.tokens, look.score, keep))

    def look_all(self, batch: Batch) -> dict[str, Look]:
        """What the gate sees of the modalities that are there.  Raises UnknownModality."""
        self._check(batch)
        return {n: self.look(n, batch.inputs[n], batch.present.get(n)) for n in self.encoders if n in batch.inputs}

    def _connect(self, name: str, tokens: Tokens) -> Tokens:
        tokens = self.connectors[name](tokens) if name in self.connectors else tokens
        return tokens if self.shared is None else self.shared(tokens, name)

    def encode_all(self, batch: Batch) -> dict[str, Tokens]:
        """Run the encoders of the modalities that are there, as far as a gate lets them.  Raises UnknownModality."""
        if self.gate is not None:
            looks = self.look_all(batch)
            return self.encode_kept(looks, self.gate.choose(self.gate.summaries(looks)))
        self._check(batch)
        streams = {name: self.encode(name, batch.inputs[name]) for name in self.encoders if name in batch.inputs}
        for name, present in batch.present.items():
            tokens = streams[name]
            streams[name] = Tokens(tokens.x, tokens.real() & present.unsqueeze(1), tokens.weight)
        return streams

    def _check(self, batch: Batch) -> None:
        if unknown := batch.inputs.keys() - set(self.encoders):
            raise UnknownModality(f"no encoder for {sorted(unknown)}; this model has {sorted(self.encoders)}")
        if not batch.inputs:
            raise UnknownModality(f"a batch without inputs; this model reads any of {sorted(self.encoders)}")

    def decide(self, streams: Mapping[str, Tokens]) -> Tensor:
        """Fuse any non-empty subset of the modalities' tokens and predict: (batch, outputs)."""
        if self.fusion is None:
            pair: Tensor = self.head(streams)
            return pair
        vector = self.fusion(streams if self.fill is None else self.fill(streams))
        out: Tensor = self.head(vector)
        return out if self.votes is None else self.votes(vector, out)

    def exit(self, name: str, tokens: Tokens) -> Tensor:
        """Predict from one modality alone: (batch, outputs), or for retrieval its embedding: (batch, embedding).

        Raises ModelError without exit heads.
        """
        if name in self.alone and isinstance(self.head, PairHead):
            return self.head.side(name, tokens)
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
        for name, raw in batch.inputs.items():
            streams[name], counts[f"{name}.encode"] = counted(partial(self.encode, name, raw))
        counts["decide"] = counted(lambda: self.decide(streams))[1]
        self.train(training)
        return counts

    def parameters_by_part(self) -> dict[str, int]:
        """Number of parameters per stage, of the blocks that the encoders share and of the gate."""
        counts = {f"{n}.encode": sum(p.numel() for p in self._encode_parameters(n)) for n in self.encoders}
        parts = [part for part in (self.fill, self.fusion, self.head, self.votes) if part is not None]
        decide = [p for part in parts for p in part.parameters()]
        heads = self.head.sides if isinstance(self.head, PairHead) else self.exits
        exits = {f"{n}.exit": sum(p.numel() for p in h.parameters()) for n, h in heads.items()}
        shared = {} if self.shared is None else {"shared": sum(p.numel() for p in self.shared.parameters())}
        shared |= {} if self.gate is None else {"gate": sum(p.numel() for p in self.gate.parameters())}
        return {**counts, **shared, "decide": sum(p.numel() for p in decide), **exits}

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
            raw = torch.full((rows, modality.height, modality.width, modality.channels), 127, dtype=torch.uint8)
        case "audio":
            raw = torch.linspace(-0.5, 0.5, rows * modality.max_samples).reshape(rows, -1)
        case "text":
            raw = torch.ones(rows, modality.max_tokens, dtype=torch.int64)
        case "series":
            raw = torch.zeros(rows, modality.frames, modality.channels)
        case "table":
            raw = torch.zeros(rows, len(modality.center))
        case "video":
            frames = (rows, modality.frames, modality.height, modality.width, modality.channels)
            raw = torch.full(frames, 127, dtype=torch.uint8)
        case "points":
            raw = torch.zeros(rows, modality.max_points, modality.channels)
        case "codes":
            raw = torch.ones(rows, modality.max_tokens, modality.channels, dtype=torch.int64)
    return raw
