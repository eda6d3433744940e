"""Pruning: the trace is complete, cutting equals masking, and what matters stays."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.model import tiny
from triptych.algorithm import Int8, KeepTokens, PruneChannels, PruneHeads, PruneLayers, PruneWidth, compress
from triptych.algorithm.technique import Context
from triptych.algorithm.weights.importance import scores
from triptych.algorithm.weights.layers import block_influence
from triptych.algorithm.weights.slicing import keep_units, kept_units
from triptych.algorithm.weights.trace import KINDS, Group, Kind, trace
from triptych.errors import RecipeError
from triptych.model import Multimodal
from triptych.model.dense import Dense

VARIANTS: list[dict[str, Any]] = [
    {"name": "late_fusion", "exits": True, "width": 8},
    {"name": "early_fusion"},
    {"name": "bottleneck_fusion", "exits": True},
    {"name": "late_fusion", "mixer": "depthwise", "kernel": 3},
]
BATCH = tiny.batch(3)


@cache
def variant(number: int) -> Multimodal:
    return tiny.network(**VARIANTS[number])


@cache
def groups_of(number: int, kind: Kind) -> list[Group]:
    return trace(variant(number), kind)


def removed_readers(model: Multimodal, kept: dict[Group, Tensor]) -> Multimodal:
    """The same network with zeros where other layers read the units that are not kept."""
    masked = copy.deepcopy(model)
    state = masked.state_dict()
    for group, units in kept.items():
        gone = torch.tensor([unit for unit in range(group.count) if unit not in units.tolist()], dtype=torch.int64)
        for cut in group.cuts:
            if cut.axis == 1 and isinstance(masked.get_submodule(cut.name.rpartition(".")[0]), Dense):
                state[cut.name][:, cut.index(gone, group.count).flatten()] = 0
    return masked


def drawn(groups: Sequence[Group], fraction: float, seed: int) -> dict[Group, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        g: torch.randperm(g.count, generator=generator)[: kept_units(g.count, fraction)].sort().values for g in groups
    }


@given(
    st.integers(0, len(VARIANTS) - 1), st.sampled_from(["heads", "hidden"]), st.floats(0.05, 0.95), st.integers(0, 99)
)
@settings(deadline=None, max_examples=25)
@torch.no_grad()
def test_cutting_heads_and_channels_equals_masking_them(number: int, kind: Kind, fraction: float, seed: int) -> None:
    model, groups = variant(number), groups_of(number, kind)
    kept = drawn(groups, fraction, seed)
    small = keep_units(model, kept)
    assert torch.allclose(small(BATCH), removed_readers(model, kept)(BATCH), atol=1e-5)
    before, after = model.state_dict(), small.state_dict()
    for group, units in kept.items():
        for cut in group.cuts:
            gone = (group.count - len(units)) * cut.size * cut.repeats
            assert after[cut.name].shape[cut.axis] <= before[cut.name].shape[cut.axis] - gone


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("number", range(len(VARIANTS)))
@torch.no_grad()
def test_units_can_be_shuffled_within_their_group(number: int, kind: Kind) -> None:
    """A group that missed a place, or mistook its layout, would mix up units."""
    model = variant(number)
    for group in groups_of(number, kind):
        shuffled = copy.deepcopy(model)
        order = torch.randperm(group.count, generator=torch.Generator().manual_seed(1))
        for cut in group.cuts:
            tensor = shuffled.state_dict()[cut.name]
            here, there = (cut.index(u, group.count).flatten() for u in (torch.arange(group.count), order))
            tensor.index_copy_(cut.axis, here, tensor.index_select(cut.axis, there))
        assert torch.allclose(shuffled(BATCH), model(BATCH), atol=1e-5), (group.path, group.owner)


def test_every_parameter_but_the_outputs_belongs_to_a_group() -> None:
    for number in range(len(VARIANTS)):
        model = variant(number)
        traced = {cut.name for kind in KINDS for group in groups_of(number, kind) for cut in group.cuts}
        rest = {name for name, _ in model.named_parameters()} - traced
        assert {name for name in rest if not name.endswith("out.bias")} == set()


def test_the_groups_of_a_tiny_network() -> None:
    model = tiny.network("late_fusion", "picture", depth=1)
    found = {(g.kind, g.path, g.owner, g.count): {c.name: c for c in g.cuts} for g in trace(model)}
    heads = found["heads", ("encoders", "picture", "blocks", 0, "heads"), "encoders.picture.blocks.layers.0.mixer", 2]
    assert {name.split("mixer.")[1]: (c.axis, c.size, c.repeats) for name, c in heads.items()} == {
        "query_key_value.weight": (0, 8, 3),
        "query_key_value.bias": (0, 8, 3),
        "out.weight": (1, 8, 1),
    }
    assert ("hidden", ("head_hidden",), "head", 16) in found
    assert len([key for key in found if key[0] == "width"]) == 1


def test_side_by_side_features_are_found_at_their_place() -> None:
    model = tiny.network("late_fusion", "words", "facts", modalities={"words": {"dim": 24}})
    starts = {
        g.modality: c.start for g in trace(model, "width") for c in g.cuts if c.name == "head.up.weight" and g.modality
    }
    assert starts == dict(model.fusion.starts)
    assert sorted(starts.values()) in ([0, 16], [0, 24])


@given(st.integers(1, 200), st.floats(0.01, 1), st.sampled_from([1, 8]))
def test_fewer_units_stay_but_never_none(count: int, fraction: float, multiple: int) -> None:
    kept = kept_units(count, fraction, multiple=multiple)
    assert 1 <= kept <= count
    assert kept < count or count == 1 or fraction == 1
    assert kept % multiple == 0 or kept < multiple or fraction == 1


def test_widths_are_multiples_of_eight_where_possible() -> None:
    assert [kept_units(n, 0.5, multiple=8) for n in (128, 100, 16, 8, 6, 2, 1)] == [64, 48, 8, 4, 3, 1, 1]
    assert kept_units(4, 0.9) == 3


@pytest.mark.parametrize("technique", [PruneHeads(1.0), PruneChannels(1), PruneWidth(1.0), PruneLayers(1.0)], ids=repr)
@pytest.mark.parametrize("number", range(3))
@torch.no_grad()
def test_keeping_everything_changes_nothing(technique: Any, number: int) -> None:
    model = variant(number)
    same = compress(model, [technique], [BATCH])
    assert torch.equal(same(BATCH), model(BATCH))


@pytest.mark.parametrize("importance", ["magnitude", "activation", "taylor", "random"])
@pytest.mark.parametrize("cls", [PruneHeads, PruneChannels, PruneWidth])
def test_every_importance_ranks_every_kind(cls: Any, importance: Any) -> None:
    model = tiny.network("early_fusion", "picture", "motion", "facts", exits=True)
    batch = tiny.batch(3, "picture", "motion", "facts")
    small = compress(model, [cls(0.5, importance=importance, batches=1)], [batch])
    assert small(batch).isfinite().all()
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in model.parameters())


def ranked(model: Multimodal, importance: Any, owner: str) -> Tensor:
    groups = [g for g in trace(model, "hidden") if g.owner == owner]
    batches = [tiny.batch(4, "facts")]
    return scores(model, groups, importance, Context(model, batches), batches=1)[0]


def facts_network() -> Multimodal:
    return tiny.network("late_fusion", "facts")


def test_magnitude_ranks_heavy_units_high() -> None:
    model = facts_network()
    with torch.no_grad():
        model.head.up.weight[3] *= 100
    assert ranked(model, "magnitude", "head").argmax() == 3


def test_magnitude_by_hand() -> None:
    model = facts_network()
    up, out = model.head.up, model.head.out
    squares = up.weight[5].square().sum() + up.bias[5].square() + out.weight[:, 5].square().sum()
    assert ranked(model, "magnitude", "head")[5].item() == pytest.approx(squares.sqrt().item())


def test_activation_drops_a_silent_unit_however_heavy() -> None:
    model = facts_network()
    with torch.no_grad():
        model.head.up.bias[3] = -50.0
        model.head.out.weight[:, 3] *= 100
    assert ranked(model, "activation", "head").argmin() == 3
    assert ranked(model, "magnitude", "head").argmax() == 3


def test_taylor_drops_a_unit_that_the_loss_does_not_feel() -> None:
    model = facts_network()
    with torch.no_grad():
        model.head.out.weight[:, 3] = 0.0
    found = ranked(model, "taylor", "head")
    assert found[3] == 0
    assert (found > 0).sum() == len(found) - 1


def test_taylor_without_targets_is_refused() -> None:
    model, batch = facts_network(), tiny.batch(2, "facts")
    with pytest.raises(RecipeError, match="targets"):
        compress(model, [PruneChannels(importance="taylor")], [type(batch)(batch.inputs)])


def test_random_pruning_follows_the_seed() -> None:
    model = facts_network()
    prune = [PruneChannels(importance="random")]
    batch = tiny.batch(2, "facts")
    one, again, other = (compress(model, prune, seed=seed)(batch) for seed in (0, 0, 1))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_only_the_named_modalities_are_pruned() -> None:
    model = tiny.network("late_fusion")
    small = compress(model, [PruneWidth(0.5, modalities=("sound",))])
    assert {name: e.dim for name, e in small.config.encoders.items()} == {**dict.fromkeys(tiny.NAMES, 16), "sound": 8}
    assert small(BATCH).shape == (3, 3)


@pytest.mark.parametrize("cls", [PruneHeads, PruneLayers, PruneChannels])
def test_unknown_modalities_are_refused_by_name(cls: Any) -> None:
    with pytest.raises(RecipeError, match=r"smell.*facts"):
        compress(variant(0), [cls(modalities=("smell",))], [BATCH])


@pytest.mark.parametrize("technique", [PruneHeads(), PruneLayers()], ids=repr)
def test_nothing_to_prune_is_an_error(technique: Any) -> None:
    with pytest.raises(RecipeError, match="nothing to prune"):
        compress(facts_network(), [technique], [BATCH])


@torch.no_grad()
def test_techniques_chain() -> None:
    recipe = [PruneLayers(importance="last"), PruneWidth(), PruneHeads(), PruneChannels(), Int8()]
    small = compress(variant(1), recipe, [BATCH])
    assert small(BATCH).shape == (3, 3)
    assert small.config.recipe == tuple(map(repr, recipe))


@pytest.mark.parametrize("number", [0, 1, 2])
@torch.no_grad()
def test_a_block_that_does_nothing_goes_first_and_is_not_missed(number: int) -> None:
    model = copy.deepcopy(variant(number))
    for name, parameter in model.named_parameters():
        if ".layers.0." in name and (".mixer.out." in name or ".channel.down." in name):
            parameter.zero_()
    small = compress(model, [PruneLayers(0.5)], [BATCH])
    assert torch.allclose(small(BATCH), model(BATCH), atol=1e-6)
    depths = [len(e.blocks) for n, e in small.config.encoders.items() if n != "facts"]
    assert depths == [1] * 4
    assert all(len(blocks) <= 1 for blocks in [small.config.fusion.blocks])


@torch.no_grad()
def test_influence_by_hand() -> None:
    model = tiny.network("late_fusion", "picture", depth=1)
    batch = tiny.batch(2, "picture")
    seen: list[Tensor] = []
    block = model.get_submodule("encoders.picture.blocks.layers.0")
    handle = block.register_forward_hook(lambda _m, i, o: seen.extend((i[0].x, o.x)))
    found = block_influence(model, [batch])["encoders", "picture", "blocks"]
    handle.remove()
    before, after = seen
    cosine = (before * after).sum(-1) / (before.norm(dim=-1) * after.norm(dim=-1))
    assert found.tolist() == pytest.approx([1 - cosine.mean().item()], abs=1e-5)


def test_a_block_that_reduces_tokens_stays() -> None:
    model = compress(tiny.network("late_fusion", "picture", depth=3), [KeepTokens()])
    small = compress(model, [PruneLayers(0.3, importance="random")], seed=3)
    assert [block.reduce is not None for block in small.config.encoders["picture"].blocks] == [True]
    batch = tiny.batch(3, "picture")
    assert compress(model, [PruneLayers(0.3)], [batch])(batch).shape == (3, 3)


@pytest.mark.parametrize("name", ["cross_fusion", "hybrid_fusion", "linear_cross_fusion"])
@torch.no_grad()
def test_every_cross_attention_loses_heads_of_its_own(name: str) -> None:
    model = tiny.network(name, "picture", "motion", fusion_depth=1)
    groups = [g for g in trace(model, "heads") if g.path[0] == "fusion"]
    across = {g.owner for g in groups if ".across." in g.owner}
    assert {owner.split(".across.")[1].split(".")[0] for owner in across} == {"picture", "motion"}
    assert not any(group.owner == "fusion" for group in groups)
    kept = {group: torch.tensor([number % 2]) for number, group in enumerate(groups)}
    batch = tiny.batch(3, "picture", "motion")
    assert torch.allclose(keep_units(model, kept)(batch), removed_readers(model, kept)(batch), atol=1e-5)


@torch.no_grad()
def test_a_head_that_only_one_reader_needs_stays_there() -> None:
    model = tiny.network("cross_fusion", "picture", "motion", fusion_depth=1)
    for number, pair in enumerate(("picture.motion", "motion.picture")):
        attention = model.get_submodule(f"fusion.layers.0.across.{pair}.reading.attention")
        attention.out.weight[:, 8 * (1 - number) : 8 * (2 - number)] = 0  # the other of two heads of eight
        attention.query.weight[8 * (1 - number) : 8 * (2 - number)] = 0
        attention.key_value.weight[16 * (1 - number) : 16 * (2 - number)] = 0
    small = compress(model, [PruneHeads()])
    for number, pair in enumerate(("picture.motion", "motion.picture")):
        out = f"fusion.layers.0.across.{pair}.reading.attention.out"
        was = model.get_submodule(out).weight[:, 8 * number : 8 * (number + 1)]
        assert torch.equal(small.get_submodule(out).weight, was)


@pytest.mark.parametrize(
    ("name", "loud"),
    [("cross_fusion", "across.picture.motion.channel.down"), ("hybrid_fusion", "across.picture.attention.out")],
)
def test_readings_of_a_fusion_count_as_influence(name: str, loud: str) -> None:
    model = tiny.network(name, "picture", "motion", fusion_depth=3)
    batch = tiny.batch(3, "picture", "motion")
    quiet = block_influence(model, [batch])["fusion", "blocks"]
    with torch.no_grad():
        model.get_submodule(f"fusion.layers.1.{loud}").weight.normal_(std=5)
    found = block_influence(model, [batch])["fusion", "blocks"]
    assert len(found) == 3
    assert found[1] > quiet[1] + 0.05
    assert found.argmax() == 1


def test_a_step_within_a_step_is_counted_once() -> None:
    model = tiny.network("cross_fusion", "picture", "motion", fusion_depth=1)
    changes: list[Tensor] = []

    def hook(_step: object, inputs: tuple[Any, ...], output: Any) -> None:
        changes.append((1 - torch.cosine_similarity(inputs[0].x, output.x, dim=-1)).mean())

    layer = model.get_submodule("fusion.layers.0")
    for step in (layer.across.picture.motion, layer.across.motion.picture, *layer.within.values()):
        step.register_forward_hook(hook)
    batch = tiny.batch(3, "picture", "motion")
    with torch.no_grad():
        model(batch)
    expected = torch.stack(changes).mean().item()
    assert block_influence(model, [batch])["fusion", "blocks"].tolist() == pytest.approx([expected], abs=1e-5)
