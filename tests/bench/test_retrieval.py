"""Retrieval figures from a bundle are those of its network, and the page tells both."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "bench"))

import retrieval_bundle  # noqa: E402
import side_tables  # noqa: E402

from triptych.measure.retrieval import details  # noqa: E402


def test_a_bundle_finds_what_its_network_finds_and_loads_no_torch(
    pairs_bundle: Path, tiny_pairs: Path, tiny_pairs_data: Any, pairs_vectors: dict[str, np.ndarray]
) -> None:
    targets = np.asarray(tiny_pairs_data.test.targets)
    pair = tiny_pairs_data.schema.pair
    outputs = np.concatenate([pairs_vectors[side] for side in pair], axis=1).astype(np.float64)
    wanted = {k: v for k, v in details(outputs, targets, pair).items() if "recall" in k}
    found = retrieval_bundle.from_bundle(pairs_bundle, tiny_pairs, targets)
    assert {k: found[k] for k in wanted} == pytest.approx(wanted)
    assert found["rows"] == len(targets) == 16
    assert found["embed_s"] > 0 < found["search_s"]
    fewer = retrieval_bundle.from_bundle(pairs_bundle, tiny_pairs, targets, rows=4)
    assert fewer["rows"] == 4


def record() -> dict[str, Any]:
    names = [f"{a}_to_{b}_{what}" for a, b in (("image", "title"), ("title", "image")) for what in FIGURES]
    test = {name: {"mean": 0.5, "least": 0.4, "most": 0.6} for name in names}
    run = {"seed": 0, "test": dict.fromkeys(names, 0.5)}
    return {
        "dataset": {"name": "fashion", "rows": {"test": 9}},
        "pair": ["image", "title"],
        "encoders": "some, frozen",
        "chosen": "info_nce",
        "losses": {"info_nce": {"runs": [run], "test": test}},
        "against": {"image_to_title_recall_at_1": {"value": 0.5, "limit": 0.35, "met": True}},
    }


FIGURES = ("recall_at_1", "recall_at_10", "median_rank")


def test_the_table_puts_the_bundle_beside_torch(tmp_path: Path) -> None:
    told = record()
    (tmp_path / "retrieval.json").write_text(json.dumps(told))
    assert "bundle" not in side_tables.retrieval_table(tmp_path)
    figures = {name: 0.25 for name in told["losses"]["info_nce"]["runs"][0]["test"] if "recall" in name}
    told["bundle"] = {**figures, "seed": 0, "rows": 9, "embed_s": 0.002, "search_s": 1e-5, "size_bytes": 3_000_000}
    (tmp_path / "retrieval.json").write_text(json.dumps(told))
    page = side_tables.retrieval_table(tmp_path)
    assert "| image to title, R@1 | 0.500 | 0.250 |" in page
    assert "| title to image, R@10 | 0.500 | 0.250 |" in page
    assert "2.00 ms" in page
