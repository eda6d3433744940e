"""`triptych predict`: values from the command line, a file of rows or a dataset, answered by a bundle.  No torch."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from triptych.cli_show import Plan, Screen
from triptych.errors import DataError, RecipeError, UnknownModality
from triptych.report import words
from triptych.report.model import plain
from triptych.schema import FILES

if TYPE_CHECKING:
    from triptych.schema import Modality, Schema
    from triptych.system.runtime import Bundle

CHUNK = 256
SHOWN = 5
MATCHES = 10


@dataclass(frozen=True)
class Asked:
    """Which bundle answers, and how; with an index, by what it finds there."""

    bundle: Path
    threads: int = 1
    point: str | None = None
    deadline_s: float | None = None
    index: Path | None = None
    k: int | None = None

    def __post_init__(self) -> None:
        if self.index is None and self.k is not None:
            raise RecipeError("--k says how many matches to show; it needs --index FILE")
        if self.index is not None and (self.point is not None or self.deadline_s is not None):
            raise RecipeError("a search runs one side's graphs; leave --point and --deadline-s out beside --index")

    def load(self) -> Bundle:
        """Verify and open the bundle."""
        from triptych.system.runtime import Bundle

        return Bundle.load(self.bundle, threads=self.threads)

    @property
    def how(self) -> dict[str, Any]:
        """Options of `Bundle.predict`."""
        return {"point": self.point, "deadline_s": self.deadline_s}


def predict(
    bundle: Path,
    /,
    *,
    rows: Path | None = None,
    data: str | None = None,
    split: str = "test",
    out: Path | None = None,
    threads: int = 1,
    point: str | None = None,
    deadline_s: float | None = None,
    index: Path | None = None,
    k: int | None = None,
    **inputs: str,
) -> Plan:
    """Answer with a bundle: one row from options named after its modalities, or many from a file.

    A bundle for retrieval answers with embeddings, or with --index by what it finds.

    Args:
        bundle: A bundle folder.
        rows: A .jsonl file with an object per row, keyed by modality, paths relative to it; or a .csv or .parquet file.
        data: A dataset to predict a split of.
        split: Which of its splits.
        out: The JSON-lines file for the answers to many rows.
        threads: Threads that the engine may use.
        point: The operating point to answer at.
        deadline_s: Answer at the best operating point that was measured to take no longer.
        index: Search what `triptych index` wrote.
        k: How many matches to give; 10 where left out.
        inputs: One input each, named after a modality: a file, a text, or JSON numbers.
    """
    check_sources(rows=rows, data=data, out=out, inputs=inputs)
    asked = Asked(bundle, threads, point, deadline_s, index, k)

    def run(screen: Screen) -> Mapping[str, Any]:
        if out is None or inputs:
            return answer_one(asked, {name.replace("-", "_"): text for name, text in inputs.items()}, screen)
        source, part = (str(rows), None) if rows is not None else (str(data), split)
        return answer_rows(asked, source, split=part, out=out, screen=screen)

    options = {"rows": rows, "data": data, "split": split, "out": out, "inputs": inputs}
    return Plan("predict", {**asdict(asked), **options}, run)


def check_sources(*, rows: Path | None, data: str | None, out: Path | None, inputs: Mapping[str, str]) -> None:
    """Raise RecipeError unless the rows come from exactly one place, and many have somewhere to go."""
    given = [name for name, value in (("--rows", rows), ("--data", data), ("inputs", inputs)) if value]
    if len(given) != 1:
        raise RecipeError(
            "give one of --rows FILE, --data DATASET, or inputs named after the bundle's modalities such as "
            f"--image cat.png; got {given or 'none'}"
        )
    if not inputs and out is None:
        raise RecipeError(f"{given[0]} needs --out FILE.jsonl for the answers")


def answer_one(asked: Asked, inputs: Mapping[str, str], screen: Screen) -> dict[str, Any]:
    """Answer the row given on the command line."""
    bundle = asked.load()
    values = {name: value_of(bundle.schema, name, inputs[name]) for name in inputs}
    if asked.index is not None:
        (found,) = answerer(asked, bundle)([values])
        screen.table(("match", "similarity"), [(m["id"], f"{m['score']:.3f}") for m in found["matches"]])
        return found
    prediction = bundle.predict(**asked.how, **values)
    best = sorted(prediction.probabilities.items(), key=lambda pair: -pair[1])[:SHOWN]
    if best:
        screen.table(("class", "probability"), [(name, f"{100 * share:.1f} %") for name, share in best])
    if prediction.shares:
        read = [(name, f"{100 * share:.0f} %" if share else "left out") for name, share in prediction.shares.items()]
        screen.table(("modality", "read"), [*read, *((name, "missing") for name in prediction.missing)])
    for name, vector in prediction.embeddings.items():
        screen.say(f"{name}: a vector of {len(vector)} numbers, in the line on stdout; search with --index")
    if prediction.value is not None:
        screen.say(f"{bundle.schema.target}: {words.number(prediction.value)}")
    return asdict(prediction)


def answerer(asked: Asked, bundle: Bundle) -> Callable[[Sequence[Mapping[str, Any]]], list[dict[str, Any]]]:
    """What turns rows into answers: the bundle alone, or with the index what each row finds there.

    A row asks by the side that the index does not hold, where it has that, else by the other.
    Raises DataError where another bundle made the index.
    """
    if asked.index is None:
        return lambda rows: [asdict(answer) for answer in bundle.predict_many(rows, **asked.how)]
    from triptych.system.runtime import Index

    if bundle.schema.task != "retrieval":
        raise DataError(f"{asked.bundle} is for {bundle.schema.task}; only a bundle for retrieval searches an index")
    index = Index.load(str(asked.index))
    if index.space not in {"", bundle.space}:
        raise DataError(
            f"another bundle made the index {asked.index}; make it again with `triptych index {asked.bundle}`"
        )
    sides = sorted(bundle.schema.pair, key=lambda name: name == index.modality)

    def search(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        names = [next((name for name in sides if row.get(name) is not None), sides[0]) for row in rows]
        vectors = bundle.embed_many([{name: row.get(name)} for name, row in zip(names, rows, strict=True)])
        found = index.search_many(vectors, MATCHES if asked.k is None else asked.k)
        return [
            {"modality": name, "searched": index.modality, "matches": [asdict(match) for match in matches]}
            for name, matches in zip(names, found, strict=True)
        ]

    return search


def answer_rows(asked: Asked, source: str | Path, *, split: str | None, out: Path, screen: Screen) -> dict[str, Any]:
    """Answer every row of a file (split None) or of a dataset's split; write one JSON object per row."""
    bundle = asked.load()
    rows, answer_all = rows_of(bundle.schema, source, split=split), answerer(asked, bundle)
    partial = out.with_name(f"{out.name}.partial")
    out.parent.mkdir(parents=True, exist_ok=True)
    count = 0
    with partial.open("w", encoding="utf-8") as file:
        while chunk := list(islice(rows, CHUNK)):
            answers = answer_all([row for _, row in chunk])
            file.writelines(_line(name, answer) for (name, _), answer in zip(chunk, answers, strict=True))
            count += len(chunk)
    partial.replace(out)
    screen.say(f"wrote {count} answers to {out}")
    return {"rows": count, "out": str(out)}


def rows_of(schema: Schema, source: str | Path, *, split: str | None) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Ids and undecoded values of the rows of a file (split None) or of a dataset's split."""
    found = _file_rows(Path(source), schema) if split is None else _dataset_rows(str(source), split, schema)
    return ((name, {k: v for k, v in row.items() if k in schema.names}) for name, row in found)


def _line(name: str, answer: Mapping[str, Any]) -> str:
    return json.dumps(plain({"id": name, **answer}), ensure_ascii=False, allow_nan=False) + "\n"


def value_of(schema: Schema, name: str, text: str) -> Any:
    """An undecoded value from a command-line word: a path, a text, or numbers as JSON or in a .npy or .json file."""
    if name not in schema.names:
        raise UnknownModality(f"--{name}: this bundle has the modalities {list(schema.names)}")
    kind = schema[name].kind
    if kind in ("image", "audio", "text") or (kind in FILES and not text.lstrip().startswith("[")):
        return text
    try:
        return _numbers(text)
    except (OSError, ValueError) as error:
        raise DataError(
            f"--{name} needs numbers: JSON such as [1.5, null, 3], or a .json or .npy file; {error}"
        ) from error


def _numbers(text: str) -> Any:
    if text.endswith(".npy"):
        import numpy as np

        return np.load(text, allow_pickle=False)
    return json.loads(Path(text).read_text(encoding="utf-8") if text.endswith(".json") else text)


def _dataset_rows(source: str, split: str, schema: Schema) -> Iterator[tuple[str, Mapping[str, Any]]]:
    from triptych.data.read import load_data

    part = load_data(source, pair=schema.pair or None)[split]
    return ((str(part.ids[i]), part.raw(i)) for i in range(len(part)))


def _file_rows(path: Path, schema: Schema) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if path.suffix in (".csv", ".parquet"):
        from triptych.data.read import load_rows

        part = load_rows(path, schema)
        return ((str(part.ids[i]), part.raw(i)) for i in range(len(part)))
    if not path.is_file():
        raise DataError(f"{path} does not exist; give a .jsonl, .csv or .parquet file")
    return _json_rows(path, schema)


def _json_rows(path: Path, schema: Schema) -> Iterator[tuple[str, Mapping[str, Any]]]:
    known = {"id", *schema.names}
    with path.open(encoding="utf-8") as file:
        for number, text in enumerate(file, 1):
            if not text.strip():
                continue
            try:
                row = json.loads(text)
            except ValueError as error:
                raise DataError(f"{path}, line {number}: not JSON: {error}") from error
            if not isinstance(row, dict) or row.keys() - known:
                raise DataError(f"{path}, line {number}: expected an object with keys of {sorted(known)}")
            values = {name: _beside(path, schema[name], value) for name, value in row.items() if name != "id"}
            yield str(row.get("id", number - 1)), values


def _beside(path: Path, modality: Modality, value: Any) -> Any:
    """Paths of media count from the file that names them."""
    is_path = modality.kind in FILES and isinstance(value, str) and value
    return str(path.parent / value) if is_path and "://" not in value else value
