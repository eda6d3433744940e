"""Sounds become codes before a network reads them, and the page says what that cost."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "bench"))

import coded  # noqa: E402
import coded_page  # noqa: E402

RESULT = ROOT / "docs" / "results" / "coded.json"


def test_codes_take_the_place_of_the_sound(tiny_data: Any) -> None:
    stem = coded.network(tiny_data, 0).encoders["audio"].stem
    books = coded.learnt(stem, tiny_data, levels=2, entries=4)
    instead = coded.coded(stem, tiny_data, books)
    modality = instead.schema["audio"]
    assert (modality.kind, modality.channels, modality.max_tokens, modality.vocabulary) == ("codes", 2, stem.tokens, 5)
    for name, split in instead.splits.items():
        read = torch.from_numpy(split.arrays()["audio"])
        x, real = stem.runs(torch.from_numpy(tiny_data[name].arrays()["audio"]))
        assert torch.equal(read != 0, real.unsqueeze(2).expand(-1, -1, 2))
        assert torch.equal(read[real] - 1, books.encode(x)[real])


def test_the_page_tells_what_is_left_and_gained() -> None:
    members = {"audio": {"quality": [0.5, 0.6, 0.7], "commits": ["a" * 40]}}
    members["codes-1"] = {"quality": [0.4, 0.6, 0.7], "commits": ["b" * 40 + "+changes"]}
    one = {"metric": "accuracy", "tokens": 25, "width": 96, "left": {"1": 0.25}, "members": members}
    page = coded_page.page({"options": {"entries": 256, "rows": 9600, "seeds": 3}, "sets": {"ravdess": one}})
    assert "| frames (control) | 3,072 | 0.0 % | 0.600 ± 0.248 |  |" in page
    assert "| 1 code | 8 | 25.0 % | 0.567 ± 0.379 | −0.033 ± 0.143 |" in page


@pytest.mark.skipif(not RESULT.exists(), reason="docs/results holds no coded.json")
def test_the_page_equals_the_measurements() -> None:
    assert (ROOT / "docs" / "coded.md").read_text() == coded_page.page(json.loads(RESULT.read_text()))
