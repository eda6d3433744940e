"""Answers in the task's own words, from files, bytes, arrays and text, at any operating point."""

import dataclasses
import io

import numpy as np
import pytest
from PIL import Image

from tests.system import tiny
from triptych.data.limits import Limits
from triptych.errors import BudgetError, LimitError, SchemaError, UnknownModality
from triptych.system.runtime import Bundle

TEXT = "what colour is it"
IDS = np.array([[2, 3, 4, 5]])


@pytest.fixture(scope="module")
def bundle(written):
    return Bundle.load(written)


@pytest.fixture(scope="module")
def picture():
    return tiny.example(3)["image"][0]


def png(picture):
    buffer = io.BytesIO()
    Image.fromarray(picture[..., 0]).save(buffer, "PNG")
    return buffer.getvalue()


def same(one, other):
    for field in dataclasses.fields(one):
        if field.name == "probabilities":
            np.testing.assert_allclose(list(one.probabilities.values()), list(other.probabilities.values()), rtol=1e-5)
        elif field.name != "seconds":
            assert getattr(one, field.name) == getattr(other, field.name)


def test_a_prediction_says_what_and_how(bundle, picture):
    answer = bundle.predict(image=picture, text=TEXT)
    logits = tiny.expected({"image": picture[None], "text": IDS})[0]
    chances = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    assert answer.label == tiny.SCHEMA.classes[int(logits.argmax())]
    assert list(answer.probabilities) == list(tiny.SCHEMA.classes)
    np.testing.assert_allclose(list(answer.probabilities.values()), chances, rtol=1e-3)
    assert (answer.used, answer.missing, answer.engine) == (("image", "text"), (), "fused")
    assert (answer.value, answer.point, answer.deadline_met) == (None, None, None)
    assert answer.seconds > 0


def test_arrays_bytes_and_files_answer_alike(bundle, picture, tmp_path):
    (tmp_path / "a.png").write_bytes(png(picture))
    arrays = bundle.predict(image=picture, text=TEXT)
    for value in (png(picture), tmp_path / "a.png", str(tmp_path / "a.png")):
        same(bundle.predict(image=value, text=TEXT), arrays)


def test_missing_modalities_are_said(bundle):
    answer = bundle.predict(image=None, text=TEXT)
    assert (answer.used, answer.missing, answer.engine) == (("text",), ("image",), "staged")
    with pytest.raises(SchemaError, match="row 0: every modality is missing"):
        bundle.predict(image=None, text="  ")
    with pytest.raises(UnknownModality, match="no encoder for"):
        bundle.predict(smell="rose")


def test_limits_are_applied(bundle, picture):
    with pytest.raises(LimitError, match="max_pixels"):
        bundle.predict(image=png(picture), limits=Limits(max_pixels=3))


@pytest.mark.parametrize("size", [1, 2, 32])
def test_many_rows_equal_single_rows_in_order(bundle, size):
    images = [tiny.example(i)["image"][0] for i in range(3)]
    rows = [
        {"image": images[0], "text": "what is it"},
        {"text": "is"},
        {"image": images[1]},
        {"image": images[2], "text": TEXT},
        {"image": None, "text": "colour it is"},
        {"image": images[0].repeat(2, axis=0), "text": "it"},
    ]
    together = bundle.predict_many(rows, batch_size=size)
    for one, row in zip(together, rows, strict=True):
        same(one, bundle.predict(**row))
    assert bundle.predict_many([]) == []
    with pytest.raises(SchemaError, match="batch_size"):
        bundle.predict_many(rows, batch_size=0)


def test_a_cascade_stops_when_it_is_sure(tmp_path, picture):
    def answers(threshold):
        point = {"name": "c", "modalities": ("text", "image"), "engine": "cascade", "threshold": threshold}
        made = tmp_path / str(threshold)
        bundle = Bundle.load(tiny.write(made, points=[point]))
        return bundle, bundle.predict_many([{"text": t, "image": picture} for t in ("what", "it", "is")], point="c")

    bundle, never = answers(1.0)
    whole = bundle.predict(text="what", image=picture)
    assert never[0].probabilities == pytest.approx(whole.probabilities, rel=1e-5)
    assert {one.used for one in never} == {("text", "image")}
    _, always = answers(0.01)
    assert {one.used for one in always} == {("text",)}
    logits = tiny.pooled("text", np.array([[2]])) @ tiny.WEIGHTS["text.exit"]
    assert always[0].label == tiny.SCHEMA.classes[int(logits.argmax())]
    surest = sorted(max(one.probabilities.values()) for one in always)
    _, mixed = answers(float(np.mean(surest[:2])))
    stopped = [one.used == ("text",) for one in mixed]
    assert stopped == [max(one.probabilities.values()) >= np.mean(surest[:2]) for one in always]
    for one, early, late in zip(mixed, always, never, strict=True):
        same(one, early if one.used == ("text",) else late)


def test_a_cascade_decodes_only_what_it_needs(tmp_path):
    point = {"name": "c", "modalities": ("text", "image"), "engine": "cascade", "threshold": 0.01}
    bundle = Bundle.load(tiny.write(tmp_path / "b", points=[point]))
    assert bundle.predict(text="what", image=b"not even an image", point="c").used == ("text",)
    assert bundle.predict(image=np.zeros((4, 4), np.uint8), point="c").missing == ("text",)


def test_a_deadline_takes_the_best_point_that_fits(bundle, picture):
    def at(deadline_s, **row):
        answer = bundle.predict(deadline_s=deadline_s, **row)
        return answer.point, answer.used, answer.deadline_met

    both = {"image": picture, "text": TEXT}
    assert at(1.0, **both) == ("full", ("image", "text"), True)
    assert at(0.0015, **both) == ("text", ("text",), True)
    assert at(1e-9, **both) == ("text", ("text",), False)
    assert at(1.0, text=TEXT) == ("text", ("text",), True)
    with pytest.raises(BudgetError, match=r"measured p50_s for \['image'\]"):
        at(1.0, image=picture)


def test_points_are_chosen_by_name(bundle, picture):
    answer = bundle.predict(image=picture, text=TEXT, point="text")
    logits = tiny.pooled("text", IDS) @ tiny.WEIGHTS["text.exit"]
    assert (answer.label, answer.used) == (tiny.SCHEMA.classes[int(logits.argmax())], ("text",))
    with pytest.raises(SchemaError, match="needs \\['text'\\], which the row lacks"):
        bundle.predict(image=picture, point="text")
    with pytest.raises(SchemaError, match="one of \\['full', 'stages', 'text', 'cascade'\\]"):
        bundle.predict(text=TEXT, point="best")


def test_a_regression_gives_a_value(tmp_path):
    schema = dataclasses.replace(tiny.SCHEMA, task="regression", metric="mae", classes=())
    weights = {k: v[:, :1] if v.shape[1] == 3 else v for k, v in tiny.WEIGHTS.items()}
    golden = [tiny.expected(row)[:, :1] for row in tiny.rows()]
    graphs = tiny.graphs(weights)
    bundle = Bundle.load(tiny.write(tmp_path / "b", schema=schema, graphs=graphs, golden_outputs=golden, points=()))
    answer = bundle.predict(text=TEXT)
    assert answer.value == pytest.approx(float(tiny.expected({"text": IDS})[0, 0]), rel=1e-4)
    assert (answer.label, answer.probabilities) == (None, {})
