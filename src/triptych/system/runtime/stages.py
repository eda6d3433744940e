"""The graphs of a bundle, opened when first needed, and the ways to answer with them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, final

import numpy as np
from numpy.typing import NDArray

from triptych.errors import BundleError, SchemaError
from triptych.system.runtime.gated import Seen, answer_gated, shares_of
from triptych.system.runtime.manifest import Manifest
from triptych.system.runtime.predict import Answer, softmax
from triptych.system.runtime.session import Session
from triptych.system.runtime.wiring import Point, Stage, Tensor, output_width

Array = NDArray[Any]
Stream = Mapping[str, Array]
Way = Literal["fused", "staged"]


@final
class Stages:
    """Runs graphs by name; sessions are opened on first use and kept.

    A stream is what an encoder gives, by output name: `x` (batch, tokens, dim) and `mask` (batch, tokens).
    """

    def __init__(self, folder: str, manifest: Manifest, read: Callable[[str], bytes], *, threads: int) -> None:
        self.manifest = manifest
        self._folder, self._read, self._threads = folder, read, threads
        self.gated = "gate" in manifest.stages
        self._output = [*manifest.stages["fused"].outputs].index("output") if "fused" in manifest.stages else 0
        self.one_row = "fused" in manifest.stages and _is_one_row(manifest.stages["fused"])
        self._sessions: dict[str, Session] = {}
        self._lock = threading.Lock()

    @property
    def opened(self) -> frozenset[str]:
        """Names of the graphs that are in memory."""
        return frozenset(self._sessions)

    def encode(self, name: str, raw: Array) -> dict[str, Array]:
        """Stream of one modality.  raw: (batch, …) as `tokens.Batch` describes"""
        stage = f"{name}.encode"
        return dict(zip(self.manifest.stages[stage].outputs, self.run(stage, {name: raw}), strict=True))

    def decide(self, streams: Mapping[str, Stream]) -> Array:
        """Answer on any non-empty subset of the modalities: (batch, outputs), 2 · embedding of them for retrieval."""
        given = {f"{name}.{key}": value for name, stream in streams.items() for key, value in stream.items()}
        batch = len(next(iter(given.values())))
        tensors = self.manifest.stages["decide"].inputs
        feed = {key: given[key] if key in given else _absent(t, batch) for key, t in tensors.items()}
        return self._answer("decide", feed, batch)

    def exit(self, name: str, stream: Stream) -> Array:
        """Answer on one modality alone: (batch, outputs), or for retrieval its embedding (batch, embedding)."""
        feed = {**stream, **{f"{name}.{key}": value for key, value in stream.items()}}
        return self._answer(f"{name}.exit", feed, len(next(iter(stream.values()))))

    def fused(self, inputs: Mapping[str, Array]) -> Array:
        """Answer with every modality in one graph, row by row if it was exported for one row: (batch, outputs)."""
        batch = len(inputs[next(iter(inputs))])
        if batch == 1 or not self.one_row:
            return self._answer("fused", inputs, batch)
        return np.concatenate([self._answer("fused", row, 1) for row in _rows(inputs, batch)])

    def staged(self, inputs: Mapping[str, Array]) -> Array:
        """Answer stage by stage with the modalities that are there: (batch, outputs)."""
        if self.gated:
            return answer_gated(self.see(inputs), self.run, self.decide)
        return self.decide({name: self.encode(name, inputs[name]) for name in inputs})

    def see(self, inputs: Mapping[str, Array]) -> Seen:
        """What the stems and the gate of a bundle with one find."""
        return Seen(self.run, self.manifest.stages["gate"], self.manifest.schema, inputs)

    def answer(self, inputs: Mapping[str, Array], engine: Way) -> Answer:
        """Answer, and say of which modalities how much was read."""
        names = tuple(inputs)
        if not self.gated:
            output = self.fused(inputs) if engine == "fused" else self.staged(inputs)
            return Answer(output, (names,) * len(output), engine)
        if engine == "fused":
            batch = len(inputs[names[0]])
            found = [self.run("fused", row) for row in _rows(inputs, batch)]
            order = [*self.manifest.stages["fused"].outputs]
            output, keep = (np.concatenate([one[order.index(key)] for one in found]) for key in ("output", "keep"))
        else:
            seen = self.see(inputs)
            output, keep = answer_gated(seen, self.run, self.decide), seen.keep
        shares = shares_of(keep, self.manifest.schema, self.manifest.stages)
        used = tuple(tuple(name for name in names if row[name] > 0) for row in shares)
        return Answer(output, used, engine, tuple(shares))

    def resize(self, name: str, images: Array) -> Array:
        """Images at the schema's size.  images: (batch, height, width, channels) uint8"""
        stage = f"{name}.resize"
        if stage not in self.manifest.stages:
            modality = self.manifest.schema[name]
            raise SchemaError(
                f"{name!r} must be {modality.height}x{modality.width}, got {images.shape[1]}x{images.shape[2]}, and "
                "this bundle has no resize graph; resize the images first"
            )
        (only,) = self.manifest.stages[stage].inputs
        return np.concatenate([self.run(stage, {only: images[i : i + 1]})[0] for i in range(len(images))])

    def point(self, inputs: Mapping[str, Array], point: Point) -> Answer:
        """Answer at an operating point, with those of its modalities that are there."""
        names = tuple(name for name in point.modalities if name in inputs)
        if point.engine == "cascade":
            return self._cascade(inputs, names, point)
        if point.exit is not None:
            output = self.exit(point.exit, self.encode(point.exit, inputs[point.exit]))
        else:
            return self.answer({name: inputs[name] for name in names}, point.engine)
        return Answer(output, (names,) * len(output), point.engine)

    def _cascade(self, inputs: Mapping[str, Array], names: tuple[str, ...], point: Point) -> Answer:
        """Encode the modalities in order; rows whose exit is sure stop, the others decide on all of them."""
        batch = len(inputs[names[0]])
        output = np.empty((batch, self.manifest.schema.outputs), np.float32)
        used: list[tuple[str, ...]] = [names] * batch
        rows, streams = np.arange(batch), dict[str, Stream]()
        for number, name in enumerate(names[:-1], 1):
            streams[name] = self.encode(name, inputs[name][rows])
            given = self.exit(name, streams[name])
            sure = softmax(given).max(axis=1) >= (point.threshold or 1.0)
            output[rows[sure]] = given[sure]
            for row in rows[sure]:
                used[row] = names[:number]
            rows, streams = rows[~sure], {n: {k: v[~sure] for k, v in s.items()} for n, s in streams.items()}
            if not len(rows):
                return Answer(output, tuple(used), "cascade")
        streams[names[-1]] = self.encode(names[-1], inputs[names[-1]][rows])
        output[rows] = self.decide(streams)
        return Answer(output, tuple(used), "cascade")

    def run(self, name: str, feed: Mapping[str, Array]) -> list[Array]:
        """Outputs of one graph, in the order of its manifest.  Raises BundleError."""
        session = self._sessions.get(name) or self._open(name)
        return session(feed)

    def _answer(self, name: str, feed: Mapping[str, Array], batch: int) -> Array:
        outputs = self.run(name, feed)
        output = outputs[0] if len(outputs) == 1 else outputs[self._output]
        wanted = (batch, output_width(name, self.manifest.schema, self.manifest.stages))
        if output.shape != wanted:
            raise BundleError(f"graph {name!r} must give an output of shape {wanted}, got {output.shape}")
        return output

    def _open(self, name: str) -> Session:
        with self._lock:
            if name not in self._sessions:
                stage = self.manifest.stages.get(name)
                if stage is None:
                    raise BundleError(f"the bundle has no graph {name!r}; it has {sorted(self.manifest.stages)}")
                self._sessions[name] = Session(
                    name, self._read(f"graphs/{name}.onnx"), self._folder, stage, self._threads
                )
            return self._sessions[name]


def _rows(inputs: Mapping[str, Array], batch: int) -> Iterator[dict[str, Array]]:
    return ({name: inputs[name][i : i + 1] for name in inputs} for i in range(batch))


def _is_one_row(stage: Stage) -> bool:
    return any(tensor.shape[:1] == (1,) for tensor in (*stage.inputs.values(), *stage.outputs.values()))


def _absent(tensor: Tensor, batch: int) -> Array:
    """One token of zeros for a modality that is missing: (batch, 1, …)."""
    return np.zeros((batch, 1, *(axis or 1 for axis in tensor.shape[2:])), tensor.dtype)
