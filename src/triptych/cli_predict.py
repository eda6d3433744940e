"""`triptych predict`: values from the command line, a file of rows or a dataset, answered by a bundle.  No torch."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from triptych.cli_show import Screen
from triptych.errors import DataError, RecipeError, UnknownModality
from triptych.report import words
from triptych.report.model import plain
from triptych.schema import FILES

if TYPE_CHECKING:
    from triptych.schema import Modality, Schema
    from triptych.system.runtime import Bundle, Prediction

CHUNK = 256
SHOWN = 5


@dataclass(frozen=True)
class Asked:
    """Which bundle answers, and how."""

    bundle: Path
    threads: int = 1
    point: str | None = None
    deadline_s: float | None = None

    def load(self) -> Bundle:
        """Verify and open the bundle."""
        from triptych.system.runtime import Bundle

        return Bundle.load(self.bundle, threads=self.threads)

    @property
    def how(self) -> dict[str, Any]:
        """Options of `Bundle.predict`."""
        return {"point": self.point, "deadline_s": self.deadline_s}


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
    prediction = bundle.predict(**asked.how, **{name: value_of(bundle.schema, name, inputs[name]) for name in inputs})
    best = sorted(prediction.probabilities.items(), key=lambda pair: -pair[1])[:SHOWN]
    if best:
        screen.table(("class", "probability"), [(name, f"{100 * share:.1f} %") for name, share in best])
    else:
        screen.say(f"{bundle.schema.target}: {words.number(prediction.value)}")
    return asdict(prediction)


def answer_rows(asked: Asked, source: str | Path, *, split: str | None, out: Path, screen: Screen) -> dict[str, Any]:
    """Answer every row of a file (split None) or of a dataset's split; write one JSON object per row."""
    bundle = asked.load()
    found = _file_rows(Path(source), bundle.schema) if split is None else _dataset_rows(str(source), split)
    rows = ((name, {k: v for k, v in row.items() if k in bundle.schema.names}) for name, row in found)
    partial = out.with_name(f"{out.name}.partial")
    out.parent.mkdir(parents=True, exist_ok=True)
    count = 0
    with partial.open("w", encoding="utf-8") as file:
        while chunk := list(islice(rows, CHUNK)):
            answers = bundle.predict_many([row for _, row in chunk], **asked.how)
            file.writelines(_line(name, answer) for (name, _), answer in zip(chunk, answers, strict=True))
            count += len(chunk)
    partial.replace(out)
    screen.say(f"wrote {count} answers to {out}")
    return {"rows": count, "out": str(out)}


def _line(name: str, answer: Prediction) -> str:
    return json.dumps(plain({"id": name, **asdict(answer)}), ensure_ascii=False, allow_nan=False) + "\n"


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


def _dataset_rows(source: str, split: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    from triptych.data.read import load_data

    part = load_data(source)[split]
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
