"""Rows of undecoded values, decoded one modality at a time and only when a graph asks for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, final

from numpy.typing import NDArray

from triptych.data.collate import stack
from triptych.data.decode import decode, is_missing
from triptych.data.limits import Limits
from triptych.errors import SchemaError, UnknownModality
from triptych.schema import Modality, Schema

Array = NDArray[Any]


@final
class Rows(Mapping[str, Array]):
    """Raw inputs by modality name, (rows, …) as `tokens.Batch` describes; every row has every one of `names`."""

    def __init__(
        self,
        rows: Sequence[Mapping[str, object]],
        names: Sequence[str],
        *,
        modality: Callable[[str], Modality],
        check: Callable[[str, Array], Array],
        fit: Callable[[str, Array], Array],
        limits: Limits,
    ) -> None:
        self._rows, self._names, self._modality, self._limits = rows, names, modality, limits
        self._check, self._fit = check, fit
        self._done: dict[str, Array] = {}

    def __getitem__(self, name: str) -> Array:
        if name not in self._names:
            raise KeyError(name)
        if name not in self._done:
            modality = self._modality(name)
            values = [decode(modality, row[name], self._limits) for row in self._rows]
            if modality.kind == "image":
                values = [self._fit(name, value[None])[0] for value in values]
            self._done[name] = self._check(name, stack(modality, values))
        return self._done[name]

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def names_present(schema: Schema, row: Mapping[str, object], number: int) -> tuple[str, ...]:
    """Modalities that a row has, in schema order.  Raises UnknownModality, or SchemaError where it has none."""
    if unknown := [name for name in row if name not in schema.names]:
        raise UnknownModality(f"row {number}: no encoder for {unknown}; this bundle has {list(schema.names)}")
    present = tuple(name for name in schema.names if not is_missing(row.get(name)))
    if not present:
        raise SchemaError(f"row {number}: every modality is missing; give at least one of {list(schema.names)}")
    return present
