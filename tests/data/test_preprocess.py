"""Training, graphs and runtime resize alike."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from triptych.data.preprocess import ImageResize
from triptych.data.resize import resize, triangle
from triptych.errors import SchemaError


def noise(height: int, width: int, channels: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


sides = st.integers(1, 40)


@settings(max_examples=60, deadline=None)
@given(sides, sides, sides, sides, st.sampled_from([1, 3]))
def test_numpy_and_torch_agree_within_one_level(height, width, new_height, new_width, channels):
    image = noise(height, width, channels)
    ours = resize(image, new_height, new_width).astype(int)
    theirs = ImageResize(new_height, new_width)(torch.from_numpy(image)[None])[0].numpy().astype(int)
    assert ours.shape == theirs.shape == (new_height, new_width, channels)
    assert np.abs(ours - theirs).max() <= 1


@settings(max_examples=40, deadline=None)
@given(sides, sides)
def test_weights_are_an_average(old, new):
    weights = triangle(old, new)
    assert weights.shape == (new, old)
    assert (weights >= 0).all()
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-5)


def test_same_size_changes_nothing():
    image = noise(9, 7, 3)
    np.testing.assert_array_equal(resize(image, 9, 7), image)
    np.testing.assert_array_equal(ImageResize(9, 7)(torch.from_numpy(image)[None])[0].numpy(), image)


def test_a_flat_image_stays_flat():
    assert (resize(np.full((33, 21, 3), 137, np.uint8), 10, 50) == 137).all()


def test_halving_by_hand():
    # scale 2: the first output pixel sits at 1.0 and weighs pixels 0.5, 1.5, 2.5 away by 0.5, 1.5: 3/4, 3/4, 1/4
    row = np.array([0, 70, 140, 210], np.uint8).reshape(1, 4, 1)
    expected = [(0 * 0.75 + 70 * 0.75 + 140 * 0.25) / 1.75, (70 * 0.25 + 140 * 0.75 + 210 * 0.75) / 1.75]
    np.testing.assert_array_equal(resize(row, 1, 2)[0, :, 0], np.floor(np.array(expected) + 0.5))


def test_close_to_the_antialiased_filter_of_pillow():
    from PIL import Image

    image = noise(60, 45, 3)
    theirs = np.asarray(Image.fromarray(image).resize((20, 16), Image.Resampling.BILINEAR)).astype(int)
    assert np.abs(resize(image, 16, 20).astype(int) - theirs).max() <= 1


def test_a_photo_taller_than_one_block():
    image = noise(700, 5, 1)
    theirs = ImageResize(30, 4)(torch.from_numpy(image)[None])[0].numpy().astype(int)
    assert np.abs(resize(image, 30, 4).astype(int) - theirs).max() <= 1


@pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning")  # torch warns about torch
def test_exported_with_dynamic_size():
    import onnxruntime

    out = io.BytesIO()
    size = {1: torch.export.Dim("height", min=1, max=8192), 2: torch.export.Dim("width", min=1, max=8192)}
    program = torch.onnx.export(
        ImageResize(8, 6).eval(),
        (torch.from_numpy(noise(20, 31, 3))[None],),
        input_names=["image"],
        output_names=["resized"],
        dynamic_shapes=({**size},),
        dynamo=True,
        verbose=False,
    )
    program.save(out)
    session = onnxruntime.InferenceSession(out.getvalue(), providers=["CPUExecutionProvider"])
    for height, width in [(20, 31), (3, 50), (8, 6), (301, 17)]:
        image = noise(height, width, 3, seed=height)
        (resized,) = session.run(None, {"image": image[None]})
        assert resized.dtype == np.uint8
        assert np.abs(resized[0].astype(int) - resize(image, 8, 6).astype(int)).max() <= 1


@pytest.mark.parametrize("size", [(0, 4), (4, -1)])
def test_a_size_below_one_is_refused(size):
    with pytest.raises(SchemaError, match="at least 1"):
        ImageResize(*size)
