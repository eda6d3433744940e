"""Networks: every part in every combination, any subset of inputs, and inputs with gaps."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.model import tiny
from triptych.errors import ModelError, UnknownModality
from triptych.model import ModelConfig, Multimodal, build, example_batch
from triptych.model.build import NAMES
from triptych.model.channels import CHANNELS
from triptych.model.encoder import Block
from triptych.model.fusion import FUSIONS
from triptych.model.mixers import MIXERS
from triptych.model.stems import STEMS
from triptych.tokens import Batch, Tokens

BATCH = tiny.batch(4)
BUILDABLE = [
    (name, mixer)
    for name, mixer in itertools.product(tiny.NETWORKS, sorted(MIXERS))
    if not (name == "unified" and MIXERS[mixer].needs_count)  # modalities that share blocks differ in length
]


def test_the_tiny_schema_has_every_kind_of_stem() -> None:
    assert {*tiny.KINDS, None} == {stem.kind for stem in STEMS.values()}
    assert all(STEMS[kind].kind == kind for kind in tiny.KINDS)
    assert {NAMES[name] for name in tiny.NETWORKS} == set(FUSIONS)


@pytest.mark.parametrize(("name", "mixer"), BUILDABLE)
@torch.no_grad()
def test_every_stem_mixer_and_fusion_builds_and_answers(name: str, mixer: str) -> None:
    model = tiny.network(name, mixer=mixer, kernel=3, exits=True)
    assert model(BATCH).shape == (4, 3)
    for modality, tokens in model.encode_all(BATCH).items():
        assert tokens.x.shape[::2] == (4, 16)
        assert model.exit(modality, tokens).shape == (4, 3)


@pytest.mark.parametrize("name", tiny.NETWORKS)
@torch.no_grad()
def test_any_subset_of_modalities_is_enough(name: str) -> None:
    model = tiny.network(name)
    outputs = []
    for count in range(1, 6):
        for subset in itertools.combinations(tiny.NAMES, count):
            outputs.append(model(BATCH.only(*subset)))
            assert outputs[-1].isfinite().all()
    assert len({tuple(output.flatten().tolist()) for output in outputs}) == 31


@pytest.mark.parametrize("name", tiny.NETWORKS)
def test_gradients_reach_every_parameter(name: str) -> None:
    model = tiny.network(name, exits=True, width=8)
    streams = model.encode_all(BATCH)
    loss = model.decide(streams).square().sum() + sum(model.exit(n, t).square().sum() for n, t in streams.items())
    for absent in tiny.NAMES:
        loss = loss + model.decide({n: t for n, t in streams.items() if n != absent}).square().sum()
    loss.backward()
    without = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert without == []


@pytest.mark.parametrize("name", tiny.NETWORKS)
@pytest.mark.parametrize("absent", tiny.NAMES)
@torch.no_grad()
def test_a_row_without_a_modality_equals_a_batch_without_it(name: str, absent: str) -> None:
    model = tiny.network(name)
    present = torch.tensor([True, False, True, False])
    mixed = model(Batch(BATCH.inputs, {absent: present}))
    without = model(BATCH.only(*(n for n in tiny.NAMES if n != absent)))
    assert torch.allclose(mixed[~present], without[~present], atol=1e-5)
    assert torch.allclose(mixed[present], model(BATCH)[present], atol=1e-5)


@pytest.mark.parametrize("name", tiny.NETWORKS)
@torch.no_grad()
def test_rows_do_not_depend_on_their_batch(name: str) -> None:
    model = tiny.network(name)
    whole = model(BATCH)
    for row in range(4):
        alone = Batch({n: raw[row : row + 1] for n, raw in BATCH.inputs.items()})
        assert torch.allclose(model(alone)[0], whole[row], atol=1e-5)


@pytest.mark.parametrize(("name", "mixer"), BUILDABLE)
@torch.no_grad()
def test_padding_a_text_further_changes_nothing(name: str, mixer: str) -> None:
    model = tiny.network(name, mixer=mixer, kernel=3)
    ids = BATCH.inputs["words"].clone()
    ids[:, 8:] = 0
    short, long = ({**BATCH.inputs, "words": i} for i in (ids[:, :8], ids))
    assert torch.allclose(model(Batch(short)), model(Batch(long)), atol=1e-5)


@pytest.mark.parametrize("name", tiny.NETWORKS)
@torch.no_grad()
def test_silence_beyond_a_clip_changes_nothing(name: str) -> None:
    model = tiny.network(name, "sound", "facts")
    wave = torch.full((2, 400), math.nan)
    wave[:, :200] = tiny.batch(2, "sound").inputs["sound"][:, :200].nan_to_num()
    facts = BATCH.inputs["facts"][:2]
    padded, cut = (model(Batch({"sound": w, "facts": facts})) for w in (wave, wave[:, :200]))
    assert torch.allclose(padded, cut, atol=1e-5)


@given(st.sampled_from(tiny.NETWORKS), st.integers(0, 10_000))
@settings(deadline=None, max_examples=20)
@torch.no_grad()
def test_gaps_anywhere_give_finite_answers(name: str, seed: int) -> None:
    model = NETWORKS[name]
    inputs = dict(tiny.batch(3, seed=seed).inputs)
    generator = torch.Generator().manual_seed(seed)
    for modality in ("sound", "motion", "facts"):
        raw = inputs[modality]
        inputs[modality] = raw.masked_fill(torch.rand(raw.shape, generator=generator) < 0.7, math.nan)
        inputs[modality][0] = math.nan
    inputs["words"] = torch.zeros_like(inputs["words"])
    assert model(Batch(inputs)).isfinite().all()


NETWORKS = {name: tiny.network(name, depth=1, fusion_depth=1) for name in tiny.NETWORKS}


def test_gaps_give_finite_gradients() -> None:
    model = tiny.network("early_fusion")
    inputs = {n: raw.clone() for n, raw in BATCH.inputs.items()}
    for modality in ("sound", "motion", "facts"):
        inputs[modality][0] = math.nan
    inputs["words"][0] = 0
    model(Batch(inputs)).square().sum().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


@torch.no_grad()
def test_regression_answers_in_the_targets_unit() -> None:
    model = tiny.network("late_fusion", "facts", task="regression")
    for parameter in model.head.out.parameters():
        parameter.zero_()
    assert model(tiny.batch(3, "facts")).tolist() == [[2.0]] * 3


def test_the_parts_add_up_to_all_parameters() -> None:
    model = tiny.network(exits=True)
    counts = model.parameters_by_part()
    assert sum(counts.values()) == sum(p.numel() for p in model.parameters())
    assert counts.keys() == {*(f"{n}.{part}" for n in tiny.NAMES for part in ("encode", "exit")), "decide"}


def test_operations_by_hand() -> None:
    """One picture of 4 × 4 patches: projections, two attention products, the perceptron, then the head."""
    model = tiny.network("late_fusion", "picture", depth=1)
    tokens, dim, patch, hidden = 16, 16, 16, 32
    dense = tokens * (patch * dim + 3 * dim * dim + dim * dim + 2 * dim * hidden)
    attention = 2 * tokens * tokens * dim
    assert model.flops() == {"picture.encode": 2 * (dense + attention), "decide": 2 * (dim * 16 + 16 * 3)}


def test_counting_operations_leaves_the_mode_alone() -> None:
    model = tiny.network("late_fusion", "facts").train()
    model.flops()
    assert model.training


def test_unknown_and_missing_inputs_are_named() -> None:
    model = tiny.network("late_fusion", "facts")
    with pytest.raises(UnknownModality, match=r"sound.*facts"):
        model(tiny.batch(2, "facts", "sound"))
    with pytest.raises(UnknownModality, match="without inputs"):
        model(Batch({}))
    with pytest.raises(ModelError, match="exits=true"):
        model.exit("facts", Tokens(torch.zeros(1, 1, 16)))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: build("middle_fusion", tiny.schema()), r"unknown network.*early_fusion"),
        (lambda: build("late_fusion", tiny.schema(), colour=1), r"unknown sizes \['colour'\]"),
        (lambda: build("late_fusion", tiny.schema(), modalities={"smell": {}}), r"unknown modalities \['smell'\]"),
        (lambda: build("late_fusion", tiny.schema(), mixer="telepathy"), r"telepathy.*attention"),
        (lambda: build("late_fusion", tiny.schema(), kernel=4), "odd, got 4"),
        (lambda: build("late_fusion", tiny.schema(), dropout=1.0), "dropout"),
        (lambda: Multimodal(ModelConfig({}), tiny.schema("facts")), "encoders for"),
    ],
)
def test_what_cannot_be_built_is_refused(call: Any, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        call()


def test_sizes_of_a_modality_beat_those_of_its_kind_and_of_all() -> None:
    special = {"text": {"dim": 8, "depth": 3}, "words": {"depth": 1}}
    config = build("late_fusion", tiny.schema(), dim=16, depth=2, heads=2, modalities=special).config
    assert {n: (e.dim, len(e.blocks)) for n, e in config.encoders.items()} == {
        "picture": (16, 2),
        "sound": (16, 2),
        "words": (8, 1),
        "motion": (16, 2),
        "facts": (16, 0),
    }


@torch.no_grad()
def test_the_made_example_fits_the_network() -> None:
    model = tiny.network()
    assert model(example_batch(model.schema, rows=2)).shape == (2, 3)


@pytest.mark.parametrize("channel", sorted(CHANNELS))
@torch.no_grad()
def test_every_channel_block_is_a_configuration(channel: str) -> None:
    model = tiny.network("early_fusion", channel=channel)
    assert {type(b.channel) for b in model.modules() if isinstance(b, Block)} == {CHANNELS[channel]}
    assert model(BATCH).isfinite().all()
