"""The deployable folder, verified and run."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Self, final

import numpy as np
from numpy.typing import NDArray

from triptych.errors import BundleError, SchemaError
from triptych.schema import Modality, Schema
from triptych.system.runtime import files
from triptych.system.runtime.check import Checker
from triptych.system.runtime.gated import operations_of
from triptych.system.runtime.manifest import MAX_MANIFEST_BYTES, Manifest
from triptych.system.runtime.predict import Answer, Prediction, choose_point, predictions
from triptych.system.runtime.stages import Stages, Way
from triptych.system.runtime.wiring import Point, output_width

if TYPE_CHECKING:
    from triptych.data.limits import Limits
    from triptych.system.runtime.golden import Golden

Array = NDArray[Any]
Engine = Literal["auto"] | Way


@final
class Bundle:
    """A verified bundle.  Graphs are opened when first needed; every method may be called from several threads.

    `stages` runs single graphs: encoder outputs may be kept, moved or combined between them.
    """

    def __init__(self, folder: str, manifest: Manifest, *, threads: int, verify: bool) -> None:
        self.folder = folder
        self.manifest = manifest
        self.stages = Stages(folder, manifest, self._read, threads=threads)
        self._verify = verify
        self._check = Checker(manifest.schema)
        self._sizes = {m.name: (m.height, m.width) for m in manifest.schema.modalities if m.kind == "image"}
        self._modalities: dict[str, Modality] = {}
        self._fused_first = _fused_first(manifest)
        self._modality_count = len(manifest.schema.modalities)
        self._able_without_some: tuple[Way, ...] = ("staged",) if "decide" in manifest.stages else ()
        self._able: tuple[Way, ...] = (*(("fused",) if "fused" in manifest.stages else ()), *self._able_without_some)

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], *, threads: int = 1, verify: bool = True, check_golden: bool = False
    ) -> Self:
        """Read a bundle folder as untrusted input.

        threads: for each graph; verify: compare every file with its hash; check_golden: also run the golden examples
        Raises BundleError where anything is not as the manifest promises, ParityError where an answer is not.
        """
        if threads < 1:
            raise BundleError(f"threads must be at least 1, got {threads}")
        folder = os.path.abspath(path)
        manifest = Manifest.from_json(files.read_file(folder, files.MANIFEST, MAX_MANIFEST_BYTES))
        _check_listed(manifest)
        files.check_names(folder, manifest.files)
        if verify:
            files.check_contents(folder, manifest.files)
        bundle = cls(folder, manifest, threads=threads, verify=verify)
        if check_golden:
            bundle.check_golden()
        return bundle

    @property
    def schema(self) -> Schema:
        """Inputs and target, without tokenizer documents; `modality` has those."""
        return self.manifest.schema

    @property
    def bundle_bytes(self) -> int:
        """Size of the whole folder."""
        manifest = os.stat(os.path.join(self.folder, files.MANIFEST)).st_size
        return manifest + sum(entry.bytes for entry in self.manifest.files.values())

    @property
    def size_bytes(self) -> int:
        """What must be shipped to run: all but the golden examples and the model card."""
        extra = (self.manifest.files[name].bytes for name in (files.GOLDEN, files.CARD) if name in self.manifest.files)
        return self.bundle_bytes - sum(extra)

    @property
    def space(self) -> str:
        """Names the vector space of this bundle's embeddings: a hash of its graphs and weights."""
        graphs = {n: e.sha256 for n, e in self.manifest.files.items() if n.startswith("graphs/")}
        return files.digest(repr(sorted(graphs.items())).encode())

    def modality(self, name: str) -> Modality:
        """One modality, with its tokenizer document if it has one."""
        if name not in self._modalities:
            modality = self.schema[name]
            document = f"tokenizer.{name}.json"
            if document in self.manifest.files:
                modality = _with_tokenizer(modality, self._read(document))
            self._modalities[name] = modality
        return self._modalities[name]

    def engines(self, present: Mapping[str, object]) -> tuple[Way, ...]:
        """Which ways there are to answer when these modalities are present."""
        return self._able if len(present) == self._modality_count else self._able_without_some

    def run(self, inputs: Mapping[str, Array], engine: Engine = "auto") -> Array:
        """Answer a batch.

        inputs: by modality name as `tokens.Batch` describes, images at any size; a missing modality has no key
        engine: one fused graph, a graph per stage, or whichever was measured to be faster; batches go through the
            stages where the fused graph was exported for one row
        Returns logits (batch, classes), (batch, 1) in target units, or for retrieval both sides' unit vectors side by
        side (batch, 2 · embedding), zeros for a side that is missing.
        Raises SchemaError, BundleError.
        """
        self._check(inputs)
        if self._sizes:
            inputs = {name: self._fit(name, value) for name, value in inputs.items()}
        engine = self._engine(inputs, engine, rows=len(next(iter(inputs.values()))))
        return self.stages.fused(inputs) if engine == "fused" else self.stages.staged(inputs)

    def answer(self, inputs: Mapping[str, Array], engine: Engine = "auto") -> Answer:
        """`run`, and of which modalities each row used how much."""
        self._check(inputs)
        inputs = {name: self._fit(name, value) for name, value in inputs.items()}
        return self.stages.answer(inputs, self._engine(inputs, engine, rows=len(next(iter(inputs.values())))))

    def operations(self, shares: Mapping[str, float]) -> int | None:
        """What a full row executes that keeps these shares of its tokens, as counted at export; None where unknown."""
        return operations_of(shares, self.schema, self.manifest.stages)

    def predict(
        self,
        *,
        point: str | None = None,
        deadline_s: float | None = None,
        limits: Limits | None = None,
        **inputs: object,
    ) -> Prediction:
        """Answer one row of undecoded values by modality name: paths, bytes, arrays or text; None where missing.

        point: name of an operating point; deadline_s: take the best point that was measured to be this fast
        limits: caps on what is decoded
        Raises DataError, SchemaError, BudgetError, BundleError.
        """
        return self.predict_many([inputs], point=point, deadline_s=deadline_s, limits=limits)[0]

    def predict_many(
        self,
        rows: Sequence[Mapping[str, object]],
        *,
        batch_size: int = 32,
        point: str | None = None,
        deadline_s: float | None = None,
        limits: Limits | None = None,
    ) -> list[Prediction]:
        """Answer many rows, in their order; rows with the same modalities share a batch.  Otherwise as `predict`."""
        from triptych.system.runtime.rows import names_present

        if batch_size < 1:
            raise SchemaError(f"batch_size must be at least 1, got {batch_size}")
        groups: dict[tuple[str, ...], list[int]] = {}
        for number, row in enumerate(rows):
            groups.setdefault(names_present(self.schema, row, number), []).append(number)
        found: dict[int, Prediction] = {}
        for names, members in groups.items():
            chosen, met = self._point(names, point, deadline_s)
            for start in range(0, len(members), batch_size):
                part = members[start : start + batch_size]
                answers = self._predict_alike([rows[i] for i in part], names, chosen, met=met, limits=limits)
                found.update(zip(part, answers, strict=True))
        return [found[number] for number in range(len(rows))]

    def embed(self, *, limits: Limits | None = None, **inputs: object) -> Array:
        """Unit vector of one undecoded value, named after its modality: (embedding,) float32.

        Only that side's graphs run.  Raises as `embed_many`.
        """
        vector: Array = self.embed_many([inputs], limits=limits)[0]
        return vector

    def embed_many(
        self, rows: Sequence[Mapping[str, object]], *, batch_size: int = 32, limits: Limits | None = None
    ) -> Array:
        """Unit vectors of many rows, in their order, each with one modality: (rows, embedding) float32.

        Raises SchemaError for a bundle that is not for retrieval and a row without exactly one modality; DataError.
        """
        from triptych.data.limits import Limits
        from triptych.system.runtime.rows import Rows, names_present

        if self.schema.task != "retrieval":
            raise SchemaError(f"only a bundle for retrieval embeds; this one is for {self.schema.task}: use predict")
        if batch_size < 1:
            raise SchemaError(f"batch_size must be at least 1, got {batch_size}")
        groups: dict[str, list[int]] = {}
        for number, row in enumerate(rows):
            names = names_present(self.schema, row, number)
            if len(names) > 1:
                raise SchemaError(f"row {number} has {list(names)}; embed one modality at a time")
            groups.setdefault(names[0], []).append(number)
        found: dict[int, Array] = {}
        for name, members in groups.items():
            for start in range(0, len(members), batch_size):
                part = members[start : start + batch_size]
                raw = Rows(
                    [rows[i] for i in part],
                    (name,),
                    modality=self.modality,
                    check=self._check.value,
                    fit=self._fit_if_able,
                    limits=limits or Limits(),
                )
                found.update(zip(part, self.stages.exit(name, self.stages.encode(name, raw[name])), strict=True))
        width = output_width(f"{self.schema.pair[0]}.exit", self.schema, self.manifest.stages)
        return np.stack([found[i] for i in range(len(rows))]) if rows else np.empty((0, width or 0), np.float32)

    def profile(self, inputs: Mapping[str, Array], repeat: int = 20) -> dict[str, list[float]]:
        """Seconds of each stage: '<modality>.encode', 'decide', 'gate' with the stems and 'fused', as far as there."""
        self._check(inputs)
        inputs = {name: self._fit(name, value) for name, value in inputs.items()}
        calls: dict[str, Callable[[], object]] = {}
        if "decide" in self.manifest.stages:
            for name, raw in inputs.items():
                calls[f"{name}.encode"] = partial(self.stages.encode, name, raw)
            streams = {name: self.stages.encode(name, raw) for name, raw in inputs.items()}
            calls["decide"] = partial(self.stages.decide, streams)
        if self.stages.gated:
            calls["gate"] = partial(self.stages.see, inputs)
        if "fused" in self.engines(inputs):
            calls["fused"] = partial(self.stages.fused, inputs)
        for call in calls.values():
            call()
        rounds = [{name: _seconds(call) for name, call in calls.items()} for _ in range(repeat)]
        return {name: [one[name] for one in rounds] for name in calls}

    def golden(self) -> Golden:
        """The golden examples."""
        from triptych.system.runtime.golden import Golden

        return Golden.from_bytes(self._read(files.GOLDEN))

    def check_golden(self) -> None:
        """Run the golden examples.  Raises ParityError where an answer differs from the exported network's."""
        from triptych.system.runtime.golden import check_golden

        check_golden(self, self.golden())

    def _predict_alike(
        self,
        rows: Sequence[Mapping[str, object]],
        names: tuple[str, ...],
        point: Point | None,
        *,
        met: bool | None,
        limits: Limits | None,
    ) -> list[Prediction]:
        from triptych.data.limits import Limits
        from triptych.system.runtime.rows import Rows

        start = time.perf_counter()
        inputs = Rows(
            rows,
            names,
            modality=self.modality,
            check=self._check.value,
            fit=self._fit_if_able,
            limits=limits or Limits(),
        )
        answer = self.stages.point(inputs, point) if point else self._auto(inputs, names, rows=len(rows))
        seconds = (time.perf_counter() - start) / len(rows)
        return predictions(self.schema, answer, names, point=point.name if point else None, met=met, seconds=seconds)

    def _auto(self, inputs: Mapping[str, Array], names: tuple[str, ...], *, rows: int) -> Answer:
        engine = self._engine(dict.fromkeys(names), "auto", rows=rows)
        return self.stages.answer({name: inputs[name] for name in names}, engine)

    def _engine(self, present: Mapping[str, object], engine: Engine, *, rows: int) -> Way:
        able = self.engines(present)
        if engine == "auto":
            fused_first = self._fused_first and (rows == 1 or not self.stages.one_row)
            able = able if fused_first else able[::-1]
            chosen = able[0] if able else None
        else:
            chosen = engine if engine in able else None
        if chosen is None:
            raise SchemaError(
                f"engine {engine!r} cannot answer with {sorted(present)}: this bundle has the graphs "
                f"{sorted(self.manifest.stages)}, and 'fused' needs all of {list(self.schema.names)}"
            )
        return chosen

    def _point(
        self, names: tuple[str, ...], name: str | None, deadline_s: float | None
    ) -> tuple[Point | None, bool | None]:
        points = self.manifest.points
        if name is None:
            if deadline_s is None:
                return None, None
            return choose_point(points, names, deadline_s, higher=self.schema.metric != "mae")
        chosen = next((point for point in points if point.name == name), None)
        if chosen is None or deadline_s is not None:
            raise SchemaError(
                f"give a deadline or the name of a point, one of {[p.name for p in points]}; "
                f"got point={name!r}, deadline_s={deadline_s}"
            )
        lacking = set(chosen.modalities) - set(names)
        if lacking and (chosen.engine != "cascade" or lacking == set(chosen.modalities)):
            raise SchemaError(f"operating point {name!r} needs {sorted(lacking)}, which the row lacks")
        return chosen, None

    def _fit(self, name: str, value: Array) -> Array:
        """Bring images to the schema's size; everything else has it already."""
        size = self._sizes.get(name)
        return value if size is None or value.shape[1:3] == size else self.stages.resize(name, value)

    def _fit_if_able(self, name: str, value: Array) -> Array:
        """Like `_fit`; without a resize graph, collating resizes by the same formula."""
        return self._fit(name, value) if f"{name}.resize" in self.manifest.stages else value

    def _read(self, name: str) -> bytes:
        if name not in self.manifest.files:
            raise BundleError(f"the bundle has no {name}; export it again")
        entry = self.manifest.files[name]
        if self._verify:
            return files.read_verified(self.folder, name, entry)
        return files.read_file(self.folder, name, entry.bytes)


def _check_listed(manifest: Manifest) -> None:
    graphs = {f"graphs/{name}.onnx" for name in manifest.stages}
    tokenizers = {f"tokenizer.{m.name}.json" for m in manifest.schema.modalities if m.kind == "text"}
    if missing := graphs - manifest.files.keys():
        raise BundleError(f"manifest.json: the stages {sorted(missing)} are not among its files")
    if unknown := manifest.files.keys() - graphs - tokenizers - {files.WEIGHTS, files.GOLDEN, files.CARD}:
        raise BundleError(f"manifest.json lists {sorted(unknown)}, which belong to no stage and no modality")


def _with_tokenizer(modality: Modality, document: bytes) -> Modality:
    from dataclasses import replace

    try:
        return replace(modality, tokenizer=document.decode())
    except UnicodeDecodeError as error:
        raise BundleError(f"the tokenizer of {modality.name!r} is not text; export the bundle again") from error


def _fused_first(manifest: Manifest) -> bool:
    """Fused unless the stages were measured to be faster on all modalities."""
    costs: dict[str, float] = {}
    for point in manifest.points:
        if point.p50_s is not None and point.exit is None and set(point.modalities) == set(manifest.schema.names):
            costs[point.engine] = min(point.p50_s, costs.get(point.engine, point.p50_s))
    return costs.get("fused", 0.0) <= costs.get("staged", float("inf"))


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
