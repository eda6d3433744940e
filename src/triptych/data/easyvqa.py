"""The built-in demonstration: easy-VQA, questions about pictures of coloured shapes."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from triptych.data.declare import Declaration
from triptych.errors import DataError
from triptych.schema import Modality


def easy_vqa() -> tuple[Declaration, dict[str, pa.Table], Path]:
    """The declaration, the train and test tables, and the folder of the pictures.  Raises DataError."""
    try:
        import easy_vqa as package
    except ImportError as error:
        raise DataError(
            "the dataset 'easy-vqa' needs its package; install it with pip install easy-vqa==1.0"
        ) from error
    train = package.get_train_questions(), package.get_train_image_paths()
    test = package.get_test_questions(), package.get_test_image_paths()
    declaration = Declaration(
        name="easy_vqa",
        task="classification",
        metric="accuracy",
        target="answer",
        modalities=(
            Modality(name="image", kind="image", height=64, width=64, channels=3),
            Modality(name="question", kind="text"),
        ),
        classes=tuple(package.get_answers()),
        group="picture",
        about={"title": "easy-VQA", "licence": "MIT", "source": "pip package easy-vqa 1.0"},
    )
    root = Path(package.__file__).parent
    tables = {"train": _table("train", *train, root=root), "test": _table("test", *test, root=root)}
    return declaration, tables, root


def _table(
    split: str, questions: tuple[list[str], list[str], list[int]], paths: dict[int, str], *, root: Path
) -> pa.Table:
    asked, answers, pictures = questions
    return pa.table(
        {
            "id": [f"{split}-{number}" for number in range(len(asked))],
            "image": [Path(paths[picture]).relative_to(root).as_posix() for picture in pictures],
            "question": asked,
            "answer": answers,
            "picture": [f"{split}-{picture}" for picture in pictures],
        }
    )
