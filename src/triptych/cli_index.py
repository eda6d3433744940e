"""`triptych index`: one side of many rows, embedded by a retrieval bundle into an index to search.  No torch."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from triptych.cli_predict import CHUNK, rows_of
from triptych.cli_show import Plan, Screen
from triptych.errors import DataError, RecipeError


def index(
    bundle: Path,
    /,
    *,
    out: Path,
    data: str | None = None,
    split: str = "test",
    rows: Path | None = None,
    modality: str | None = None,
    threads: int = 1,
) -> Plan:
    """Embed one side of many rows with a retrieval bundle, for `triptych predict --index`.

    Args:
        bundle: A bundle folder, trained for retrieval.
        out: The index to write, a .safetensors file.
        data: A dataset whose rows to index.
        split: Which of its splits.
        rows: A .jsonl, .csv or .parquet file of rows instead of a dataset.
        modality: The side to index; the target's side of the bundle's pair where left out.
        threads: Threads that the engine may use.
    """
    if (data is None) == (rows is None):
        raise RecipeError("give either --data DATASET or --rows FILE to index")

    def run(screen: Screen) -> Mapping[str, Any]:
        from triptych.system.runtime import Bundle, Index

        loaded = Bundle.load(bundle, threads=threads)
        if loaded.schema.task != "retrieval":
            raise DataError(f"{bundle} is for {loaded.schema.task}; only a bundle for retrieval can index")
        side = loaded.schema.pair[1] if modality is None else modality
        found = rows_of(loaded.schema, str(rows or data), split=split if rows is None else None)
        made: Index | None = None
        while chunk := list(islice(found, CHUNK)):
            vectors = loaded.embed_many([{side: row.get(side)} for _, row in chunk])
            made = made or Index(vectors.shape[1], modality=side, space=loaded.space)
            made.add([name for name, _ in chunk], vectors)
        if made is None:
            raise DataError(f"no rows to index in {rows or data}")
        out.parent.mkdir(parents=True, exist_ok=True)
        made.save(out)
        screen.say(f"wrote {len(made)} vectors of {side!r} to {out}")
        return {"index": str(out), "modality": side, "rows": len(made), "embedding": made.width}

    options = {"bundle": bundle, "data": data, "split": split, "rows": rows, "modality": modality, "threads": threads}
    return Plan("index", {**options, "out": out}, run)
