"""A retrieval bundle: each side embedded alone as the network does, and measured beside it."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.system import tiny
from triptych.errors import BundleError, DataError, SchemaError, UnknownModality
from triptych.system.runtime import Bundle, Index, Manifest
from triptych.train.evaluate import predict

WIDTH = 12


@pytest.fixture(scope="module")
def bundle(pairs_bundle: Path) -> Bundle:
    return Bundle.load(pairs_bundle, check_golden=True)


@pytest.mark.parametrize("name", ["photo", "title"])
def test_either_side_is_embedded_as_the_network_does(
    name: str, bundle: Bundle, pairs_vectors: dict[str, np.ndarray], tiny_pairs_data: Any
) -> None:
    test = tiny_pairs_data.test
    found = bundle.embed_many([{name: test.raw(row)[name]} for row in range(len(test))], batch_size=5)
    assert found.shape == (16, WIDTH)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, pairs_vectors[name], atol=1e-5)
    np.testing.assert_allclose(bundle.embed(**{name: test.raw(3)[name]}), pairs_vectors[name][3], atol=1e-5)


def test_only_the_asked_sides_graphs_are_opened(pairs_bundle: Path) -> None:
    fresh = Bundle.load(pairs_bundle)
    fresh.embed(title="red bar left")
    assert fresh.stages.opened == {"title.encode", "title.exit"}


def test_sides_may_be_mixed_and_come_back_in_order(
    bundle: Bundle, pairs_vectors: dict[str, np.ndarray], tiny_pairs_data: Any
) -> None:
    raw = [tiny_pairs_data.test.raw(row) for row in range(4)]
    names = ["photo", "title", "title", "photo"]
    found = bundle.embed_many([{name: row[name]} for name, row in zip(names, raw, strict=True)])
    np.testing.assert_allclose(found, [pairs_vectors[name][i] for i, name in enumerate(names)], atol=1e-5)
    assert bundle.embed_many([]).shape == (0, WIDTH)


def test_predict_gives_the_sides_that_a_row_has(bundle: Bundle, tiny_pairs_data: Any) -> None:
    row = tiny_pairs_data.test.raw(0)
    both, one = bundle.predict_many([row, {"title": row["title"]}])
    assert set(both.embeddings) == {"photo", "title"}
    assert set(one.embeddings) == {"title"}
    assert one.missing == ("photo",)
    np.testing.assert_allclose(one.embeddings["title"], both.embeddings["title"], atol=1e-5)
    assert (both.label, both.value, both.probabilities) == (None, None, {})


def test_wrong_questions_are_named(bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(SchemaError, match="one modality at a time"):
        bundle.embed(title="a", photo=np.zeros((16, 16, 3), np.uint8))
    with pytest.raises(SchemaError, match="every modality is missing"):
        bundle.embed(title=" ")
    with pytest.raises(UnknownModality):
        bundle.embed(sound="x.wav")
    with pytest.raises(SchemaError, match="batch_size"):
        bundle.embed_many([], batch_size=0)
    with pytest.raises(SchemaError, match="use predict"):
        Bundle.load(tiny.write(tmp_path / "colours")).embed(text="what")


def test_a_manifest_that_cannot_embed_is_refused(bundle: Bundle) -> None:
    manifest, wide = bundle.manifest, bundle.manifest.stages["decide"]
    without = {name: stage for name, stage in manifest.stages.items() if name != "title.exit"}
    with pytest.raises(BundleError, match=r"missing are the graphs \['title.exit'\]"):
        dataclasses.replace(manifest, stages=without)
    for shape in ((None, WIDTH), (None, None), (None,)):
        output = {"output": dataclasses.replace(wide.outputs["output"], shape=shape)}
        stages = {**manifest.stages, "decide": dataclasses.replace(wide, outputs=output)}
        with pytest.raises(BundleError, match="embeddings of one known width"):
            dataclasses.replace(manifest, stages=stages)
    assert Manifest.from_json(manifest.to_json()) == manifest


def test_the_card_says_what_it_is_for(pairs_bundle: Path) -> None:
    card = (pairs_bundle / "MODEL_CARD.md").read_text()
    assert "Find `title` by `photo`, and the other way round" in card
    assert "must not be compared" in card


def test_an_index_of_another_width_is_refused(bundle: Bundle) -> None:
    with pytest.raises(DataError, match="shape"):
        Index(WIDTH + 1).search(bundle.embed(title="red"))


@pytest.mark.slow
def test_it_is_measured_beside_its_network(pairs_bundle: Path, pairs_model: Any, tiny_pairs_data: Any) -> None:
    from triptych.measure import Report, measure
    from triptych.measure.quality import details, quality

    found = measure({"network": pairs_model, "bundle": pairs_bundle}, tiny_pairs_data, repeat=4, rounds=2, warmup=1)
    outputs = predict(pairs_model, tiny_pairs_data.test).astype(float)
    targets, schema = tiny_pairs_data.test.targets, tiny_pairs_data.schema
    for report in found.values():
        assert report.quality == quality(outputs, targets, schema)
        assert report.details == details(outputs, targets, schema)
        assert report.parts["photo"].worth is None
        assert report.parts["photo"].p50_s is not None
        assert Report.from_dict(report.to_dict()) == report
    assert found["bundle"].loyalty == 1
    assert found["bundle"].params == found["network"].params
