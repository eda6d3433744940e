"""Golden examples: raw inputs and the answers that the network gave before it was exported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from triptych.errors import BundleError, ParityError, SchemaError

if TYPE_CHECKING:
    from triptych.system.runtime.bundle import Bundle

Array = NDArray[Any]


@dataclass(frozen=True)
class Golden:
    """rows: raw inputs by modality, each (1, …); outputs: (rows, outputs)"""

    rows: Sequence[Mapping[str, Array]]
    outputs: Array

    def to_bytes(self) -> bytes:
        """A safetensors document."""
        from safetensors.numpy import save

        tensors = {
            f"{i:03d}.{name}": np.ascontiguousarray(v) for i, row in enumerate(self.rows) for name, v in row.items()
        }
        return bytes(save({**tensors, "output": np.ascontiguousarray(self.outputs, dtype=np.float32)}))

    @classmethod
    def from_bytes(cls, data: bytes) -> Golden:
        """Read what `to_bytes` wrote.  Raises BundleError."""
        from safetensors import SafetensorError
        from safetensors.numpy import load

        try:
            tensors = load(data)
            outputs = tensors.pop("output")
            rows: list[dict[str, Array]] = [{} for _ in outputs]
            for key, value in tensors.items():
                number, name = key.split(".", 1)
                rows[int(number)][name] = value
        except (SafetensorError, KeyError, ValueError, IndexError, TypeError) as error:
            raise BundleError(f"the golden examples cannot be read: {error}; export the bundle again") from error
        return cls(rows, outputs)


@dataclass(frozen=True, slots=True)
class Miss:
    """One golden example that a set of graphs answers differently."""

    graphs: str
    row: int
    parts: tuple[str, ...]
    error: float
    allowed: float


def check_golden(bundle: Bundle, golden: Golden) -> None:
    """Run every golden example through the fused graph and through the stages.

    An answer may differ by `tolerance` times the larger of 1 and the largest expected number of the row.
    Raises ParityError that names the graphs, the examples and the difference.
    """
    misses = []
    for number, (row, expected) in enumerate(zip(golden.rows, golden.outputs, strict=True)):
        allowed = bundle.manifest.tolerance * max(1.0, float(np.abs(expected).max(initial=0)))
        for engine in bundle.engines(row):
            try:
                output = bundle.run(row, engine=engine)[0]
            except SchemaError as error:
                raise BundleError(f"golden example {number} does not fit the schema: {error}") from error
            error_size = float(np.abs(output - expected).max()) if output.shape == expected.shape else np.inf
            if not error_size <= allowed:
                misses.append(Miss(engine, number, tuple(sorted(row)), error_size, allowed))
    if misses:
        raise ParityError(_explain(misses, golden))


def _explain(misses: Sequence[Miss], golden: Golden) -> str:
    worst = max(misses, key=lambda miss: miss.error / miss.allowed)
    lines = []
    for graphs in sorted({miss.graphs for miss in misses}):
        rows = [miss for miss in misses if miss.graphs == graphs]
        lines.append(f"the {graphs} graphs miss {len(rows)} of {len(golden.rows)} examples{_suspect(rows, golden)}")
    return (
        f"the runtime disagrees with the exported network: {'; '.join(lines)}. Worst: example {worst.row} with "
        f"{' + '.join(worst.parts)}, {worst.graphs}, differs by {worst.error:.3g} where {worst.allowed:.3g} is allowed"
    )


def _suspect(misses: Sequence[Miss], golden: Golden) -> str:
    """The modalities that every failing example has and no passing one, if that tells anything."""
    failing = {miss.row for miss in misses}
    passing = {name for i, row in enumerate(golden.rows) if i not in failing for name in row}
    common = set.intersection(*(set(miss.parts) for miss in misses)) - passing
    everywhere = len(failing) == len(golden.rows)
    return f", all of them with {sorted(common)} and no other example with it" if common and not everywhere else ""
