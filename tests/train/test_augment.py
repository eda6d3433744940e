import dataclasses
import math

import pytest
import torch

from triptych.data.loader import batch_of
from triptych.errors import RecipeError
from triptych.tokens import Batch
from triptych.train import distort
from triptych.train.augment import Augment, Mixup, ModalityDropout, RePair, take_rows
from triptych.train.config import TrainConfig
from triptych.train.distort import Distortion

STRONG: dict[str, Distortion] = {
    "ShiftImage": distort.ShiftImage("image", 3),
    "CropImage": distort.CropImage("image", 0.5),
    "Tint": distort.Tint("image", 0.5),
    "MaskBand": distort.MaskBand("audio", 0.6),
    "FlipImage": distort.FlipImage("image", 0.5),
    "Tone": distort.Tone("image", 0.3, 0.3),
    "ShiftAudio": distort.ShiftAudio("audio", 0.3),
    "Gain": distort.Gain("audio", 6),
    "AudioNoise": distort.AudioNoise("audio", 0.2),
    "MaskAudio": distort.MaskTime("audio", 0.4),
    "Jitter": distort.Jitter("series", 0.3, (1.0, 2.0, 3.0)),
    "ScaleSeries": distort.ScaleSeries("series", 0.3),
    "ShiftSeries": distort.ShiftSeries("series", 0.3),
    "WarpTime": distort.WarpTime("series", 0.1),
    "RotateSeries": distort.RotateSeries("series", 40),
    "MaskSeries": distort.MaskTime("series", 0.4),
    "JitterTable": distort.Jitter("table", 0.3),
    "DropFields": distort.DropFields("table", 0.4),
    "DropWords": distort.DropFields("text", 0.5),
}
ADDS_GAPS = {"ShiftSeries", "MaskSeries", "DropFields"}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def batch(tiny_data) -> Batch:
    batch = batch_of(tiny_data.train, range(48))
    assert batch.present.keys() == set(tiny_data.schema.names)
    return batch


@pytest.mark.parametrize("name", STRONG)
def test_a_distortion_keeps_shape_type_gaps_and_absent_rows(batch: Batch, name: str) -> None:
    step = STRONG[name]
    before = {n: x.clone() for n, x in batch.inputs.items()}
    after = step(batch, seeded())
    x, y = before[step.name], after.inputs[step.name]
    assert (y.shape, y.dtype) == (x.shape, x.dtype)
    assert not torch.equal(x.nan_to_num(99), y.nan_to_num(99))
    assert all(torch.equal(batch.inputs[n].nan_to_num(99), before[n].nan_to_num(99)) for n in before)
    absent = ~batch.present[step.name]
    assert torch.equal(x[absent].nan_to_num(99), y[absent].nan_to_num(99))
    if name in {"ShiftSeries", "WarpTime"}:
        return  # gaps move along
    missing = x == 0 if x.dtype == torch.int64 else x.isnan() if x.is_floating_point() else x < 0
    gone = y == 0 if x.dtype == torch.int64 else y.isnan() if x.is_floating_point() else y < 0
    assert (gone | ~missing).all()
    assert name in ADDS_GAPS or torch.equal(gone, missing)


@pytest.mark.parametrize("name", STRONG)
def test_a_distortion_depends_on_its_generator_only(batch: Batch, name: str) -> None:
    step = STRONG[name]
    torch.manual_seed(1)
    first = step(batch, seeded(3)).inputs[step.name].nan_to_num(99)
    torch.manual_seed(2)
    assert torch.equal(first, step(batch, seeded(3)).inputs[step.name].nan_to_num(99))
    assert not torch.equal(first, step(batch, seeded(4)).inputs[step.name].nan_to_num(99))


@pytest.mark.parametrize("name", STRONG)
def test_zero_strength_is_the_identity(batch: Batch, name: str) -> None:
    step = STRONG[name]
    knobs = [f.name for f in dataclasses.fields(step) if f.name not in {"name", "spread"}]
    nothing = dataclasses.replace(step, **dict.fromkeys(knobs, 0))
    x, y = batch.inputs[step.name], nothing(batch, seeded()).inputs[step.name]
    torch.testing.assert_close(x, y, equal_nan=True)


def test_audio_moves_as_a_whole_within_its_clip() -> None:
    x = torch.tensor([[1.0, 2.0, 3.0, 4.0, math.nan, math.nan]]).repeat(40, 1)
    seen = {
        tuple(row[:4].tolist())
        for row in distort.ShiftAudio("a", 0.5)(Batch({"a": x}), seeded()).inputs["a"]
        if row[4:].isnan().all()
    }
    assert seen == {(1, 2, 3, 4), (0, 1, 2, 3), (2, 3, 4, 0)}


def test_rotation_keeps_lengths_and_the_vectors_that_have_gaps() -> None:
    x = torch.randn(4, 5, 6, generator=seeded())
    x[0, 0, 1] = math.nan
    y = distort.RotateSeries("s", 90)(Batch({"s": x}), seeded()).inputs["s"]
    assert torch.equal(x[0, 0, :3].nan_to_num(9), y[0, 0, :3].nan_to_num(9))
    torch.testing.assert_close(x.view(4, 5, 2, 3).norm(dim=3), y.view(4, 5, 2, 3).norm(dim=3), equal_nan=True)
    eye = distort.rotation(torch.tensor([[0.0, 0.0, math.pi / 2]]))[0]
    torch.testing.assert_close(eye, torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]]), atol=1e-6, rtol=0)
    with pytest.raises(RecipeError, match="in threes"):
        distort.RotateSeries("s")(Batch({"s": x[..., :2]}), seeded())


def test_defaults_exist_for_every_kind_and_vanish_at_zero(tiny_data, batch: Batch) -> None:
    usual = Augment.default(tiny_data.schema)
    assert {step.name for step in usual.steps} == set(tiny_data.schema.names)
    changed = usual(batch, seeded())
    assert all(not torch.equal(changed.inputs[n].nan_to_num(9), x.nan_to_num(9)) for n, x in batch.inputs.items())
    assert Augment.default(tiny_data.schema, 0).steps == ()
    with pytest.raises(RecipeError, match="strength"):
        Augment.default(tiny_data.schema, -1)


def test_a_negative_knob_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"Gain\.decibels"):
        distort.Gain("audio", -1.0)


# ---- artificial pairs


def test_new_partners_come_from_the_same_class() -> None:
    target = torch.tensor([0, 1, 0, 1, 2, 0, -1, -1, 1])
    codes = target * 100 + torch.arange(9)
    batch = Batch({"a": codes, "b": codes}, present={"b": codes % 2 == 0}, target=target)
    paired = [RePair()(batch, seeded(s)) for s in range(20)]
    for one in paired:
        for name in ("a", "b"):
            assert sorted(one.inputs[name].tolist()) == sorted(codes.tolist())
            assert torch.equal(torch.div(one.inputs[name] + 6, 100, rounding_mode="floor")[:6], target[:6])
            assert torch.equal(one.inputs[name][6:8], codes[6:8])
        assert torch.equal(one.present["b"], one.inputs["b"] % 2 == 0)
    assert any(not torch.equal(one.inputs["a"], one.inputs["b"]) for one in paired)
    with pytest.raises(RecipeError, match="class targets"):
        RePair()(dataclasses.replace(batch, target=target.float()), seeded())


# ---- hidden modalities


@pytest.mark.parametrize("unit", ["row", "batch"])
@pytest.mark.parametrize("probability", [0.3, 0.95])
def test_modality_dropout_never_takes_all_of_a_row(batch: Batch, unit: str, probability: float) -> None:
    names = tuple(batch.inputs)
    drop = ModalityDropout(names, probability, unit)
    for seed in range(20):
        after = drop(batch, seeded(seed))
        kept = torch.stack([after.present.get(n, torch.ones(48, dtype=torch.bool)) for n in names if n in after.inputs])
        assert kept.any(dim=0).all()
        for name, x in after.inputs.items():
            had, has = batch.present[name], after.present.get(name, batch.present[name])
            assert not (has & ~had).any()
            blank = x[~has]
            assert blank.isnan().all() if x.is_floating_point() else not blank.any()
            assert torch.equal(x[has].nan_to_num(9), batch.inputs[name][has].nan_to_num(9))


def test_a_hidden_batch_loses_the_whole_modality() -> None:
    full = Batch({"a": torch.ones(8, 2), "b": torch.ones(8, 2)})
    drop = ModalityDropout(("a", "b"), 0.5, "batch")
    seen = {tuple(sorted(drop(full, seeded(s)).inputs)) for s in range(40)}
    assert seen == {("a",), ("b",), ("a", "b")}
    assert all(not drop(full, seeded(s)).present for s in range(40))


def test_dropout_is_off_without_probability_or_choice() -> None:
    assert ModalityDropout.of(TrainConfig(), ("a", "b")) is None
    assert ModalityDropout.of(TrainConfig(modality_dropout=0.5), ("a",)) is None
    single = Batch({"a": torch.ones(2, 1)})
    assert ModalityDropout(("a", "b"), 0.9)(single, seeded()) is single


def test_rows_can_be_taken(batch: Batch) -> None:
    index = torch.tensor([5, 1])
    taken = take_rows(batch, index)
    assert len(taken) == 2
    assert taken.target is not None
    assert torch.equal(taken.target, batch.target[index])
    assert torch.equal(taken.rows, batch.rows[index])
    assert torch.equal(taken.present["text"], batch.present["text"][index])


def test_mixup_blends_what_both_rows_have_and_says_how_much(batch: Batch) -> None:
    mixed = Mixup(0.4)(batch, seeded())
    assert mixed.mix is not None
    partner, share = mixed.mix.partner, mixed.mix.share
    assert ((share >= 0.5) & (share <= 1)).all()
    assert sorted(partner.tolist()) == list(range(len(batch)))
    assert torch.equal(mixed.inputs["text"], batch.inputs["text"])
    for name in ("series", "table", "audio", "image"):
        x, y = batch.inputs[name], mixed.inputs[name]
        for row in range(len(batch)):
            other, own = x[partner[row]].double(), x[row].double()
            whole = bool(batch.present[name][partner[row]])
            blend = share[row] * own + (1 - share[row]) * other if whole else own
            expected = torch.where(blend.isnan(), own, blend)
            near = 0.51 if x.dtype == torch.uint8 else 1e-4 * (1 + expected.nan_to_num().abs().max().item())
            assert (y[row].double() - expected).nan_to_num().abs().max() <= near
            assert torch.equal(y[row].isnan(), x[row].isnan())


def test_warped_time_runs_forwards_and_keeps_its_ends() -> None:
    ramp = torch.arange(50.0).expand(16, 50)[:, :, None].clone()
    warped = distort.WarpTime("series", 1.0).change(ramp, seeded())[:, :, 0]
    assert (warped.diff(dim=1) > 0).all()
    assert torch.equal(warped[:, [0, -1]], ramp[:, [0, -1], 0])
    assert (warped - ramp[:, :, 0]).abs().max() > 1


def test_the_options_of_a_run_say_what_is_changed(tiny_data) -> None:
    assert Augment.of(TrainConfig(), tiny_data.schema) is None
    steps = Augment.of(
        TrainConfig(repair=True, crop=0.2, tint=0.1, warp=0.02, mask_bands=0.2, mixup=0.3), tiny_data.schema
    )
    assert steps is not None
    assert steps.steps == (
        RePair(),
        distort.CropImage("image", 0.2),
        distort.Tint("image", 0.1),
        distort.MaskBand("audio", 0.2),
        distort.WarpTime("series", 0.02),
        Mixup(0.3),
    )


def test_a_masked_band_silences_its_tones_only() -> None:
    time = torch.arange(4000) / 4000
    tones = torch.stack([(2 * torch.pi * hertz * time).sin() for hertz in (100, 400, 900, 1500)])
    step = distort.MaskBand("audio", 0.5)
    energy = torch.stack([step.change(tones, seeded(seed)).square().mean(dim=1) for seed in range(20)])
    silenced, whole = energy < 1e-3, (energy - 0.5).abs() < 1e-3
    assert (silenced | whole).all()
    assert silenced.any()
    assert whole.any()


def test_a_crop_keeps_the_order_of_rows_and_columns() -> None:
    ramp = torch.arange(40, dtype=torch.uint8)
    image = (ramp[:, None] + ramp[None, :])[None, :, :, None].expand(8, 40, 40, 1)
    cropped = distort.CropImage("image", 0.5).change(image, seeded())[..., 0].int()
    assert (cropped.diff(dim=1) >= 0).all()
    assert (cropped.diff(dim=2) >= 0).all()
    assert ((cropped[:, -1, -1] - cropped[:, 0, 0]) < 78).any()
