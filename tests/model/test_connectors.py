"""Connectors one by one: formulas by hand, padding, weights, pruning, integers, the disk, training and export."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from tests.model import tiny
from triptych.algorithm import Int8, Int8Weights, KeepTokens, PruneChannels, PruneHeads, PruneWidth, compress
from triptych.algorithm.weights.trace import KINDS, trace
from triptych.errors import ModelError, RecipeError
from triptych.model import ModelConfig, Multimodal, load_model, save_model
from triptych.model.config import BlockConfig, ConnectorConfig, EncoderConfig, ReduceConfig
from triptych.model.connectors import CONNECTORS, Connector, make_connector
from triptych.model.connectors.regions import Folding
from triptych.system.bundle import graphs
from triptych.tokens import Batch, Tokens

INPUTS, DIM, QUERIES = 6, 8, 3
GRIDS = ((4, 6), (3, 5), (7,), ())
FOLDING = tuple(sorted(name for name, cls in CONNECTORS.items() if not cls.any_tokens))
NAMES = tuple(sorted(CONNECTORS))
BATCH = tiny.batch(3)


def config(name: str, **fields: Any) -> ConnectorConfig:
    block = BlockConfig(heads=2, head_dim=4, hidden=12)
    blocks = (block, block) if CONNECTORS[name].mixer else ()
    return ConnectorConfig(**{"name": name, "dim": DIM, "hidden": 10, "queries": QUERIES, "blocks": blocks, **fields})


def made(name: str, grid: tuple[int, ...] = (12,), **fields: Any) -> Connector:
    """A connector whose every parameter is random."""
    torch.manual_seed(0)
    encoder = EncoderConfig(INPUTS, connector=config(name, **fields))
    connector = make_connector(encoder, grid, precision="float32", dropout=0.1)
    with torch.no_grad():
        for parameter in connector.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return connector.eval()


def tokens(count: int, *, rows: int = 2, seed: int = 0) -> Tokens:
    return Tokens(torch.randn(rows, count, INPUTS, generator=torch.Generator().manual_seed(seed)))


def count_of(grid: tuple[int, ...]) -> int:
    return int(np.prod(grid)) if grid else 5


def given_out(name: str, grid: tuple[int, ...]) -> int:
    """Tokens that a connector promises."""
    if name in FOLDING:
        sides = grid or (count_of(grid),)
        return int(np.prod([-(-side // 2) for side in sides]))
    if name == "concat_pool":
        return 1
    return QUERIES if name in ("resampler", "q_former") else count_of(grid)


@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_it_gives_as_many_tokens_as_it_says(name: str, grid: tuple[int, ...]) -> None:
    out = made(name, grid)(tokens(count_of(grid)))
    assert out.x.shape == (2, given_out(name, grid), DIM)
    assert out.mask is None
    assert out.x.isfinite().all()


@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_padding_changes_no_real_token(name: str, grid: tuple[int, ...]) -> None:
    connector, given = made(name, grid), tokens(count_of(grid))
    mask = torch.rand(given.x.shape[:2], generator=torch.Generator().manual_seed(1)) < 0.6
    mask[1] = False
    one, other = (connector(Tokens(torch.where(mask.unsqueeze(-1), given.x, fill), mask)) for fill in (0.0, 1e3))
    assert torch.equal(one.real(), other.real())
    assert torch.allclose(one.x[one.real()], other.x[one.real()], atol=1e-5)
    assert one.real()[0].any()
    assert not one.real()[1].any()
    assert other.x.isfinite().all()


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_a_longer_sequence_of_padding_is_the_same(name: str) -> None:
    connector, given = made(name, (12,)), tokens(7)
    longer = Tokens(torch.cat([given.x, tokens(5, seed=3).x], dim=1), (torch.arange(12) < 7).expand(2, -1))
    one, other = connector(given), connector(longer)
    assert torch.allclose(one.x[one.real()], other.x[other.real()], atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_rows_do_not_depend_on_each_other(name: str) -> None:
    connector, given = made(name, (4, 3)), tokens(12, rows=3)
    whole = connector(given)
    for row in range(3):
        assert torch.allclose(connector(Tokens(given.x[row : row + 1])).x[0], whole.x[row], atol=1e-5)


@pytest.mark.parametrize("name", ["resampler", "q_former"])
@torch.no_grad()
def test_queries_read_a_token_of_weight_two_like_two_tokens_in_any_order(name: str) -> None:
    connector, given = made(name), tokens(4)
    twice = Tokens(torch.cat([given.x, given.x[:, 2:3]], dim=1))
    heavy = Tokens(given.x, None, torch.tensor([[1.0, 1.0, 2.0, 1.0]] * 2))
    assert torch.allclose(connector(twice).x, connector(heavy).x, atol=1e-5)
    assert torch.allclose(connector(Tokens(given.x.flip(1))).x, connector(given).x, atol=1e-5)


@pytest.mark.parametrize("name", FOLDING)
@torch.no_grad()
def test_folded_tokens_weigh_what_their_parts_weigh(name: str) -> None:
    weight = torch.tensor([[1.0, 2.0, 0.5, 3.0, 4.0]] * 2)
    assert made(name, (5,))(Tokens(tokens(5).x, None, weight)).weights()[0].tolist() == [3.0, 3.5, 4.0]


def test_squares_and_stretches_by_hand() -> None:
    places = Tokens(torch.arange(6.0).reshape(1, 6, 1))
    squares = Folding((2, 3), 2)(places)
    assert squares.x.squeeze(-1).tolist() == [[[0, 1, 3, 4], [2, 0, 5, 0]]]
    assert squares.mask is not None
    assert squares.mask.tolist() == [[[True] * 4, [True, False, True, False]]]
    assert squares.mean().flatten().tolist() == [2.0, 3.5]
    stretches = Folding((6,), 4)(places)
    assert stretches.x.squeeze(-1).tolist() == [[[0, 1, 2, 3], [4, 5, 0, 0]]]
    assert stretches.mean().flatten().tolist() == [1.5, 4.5]
    assert Folding((2, 3), 1)(places).mask is None


@torch.no_grad()
def test_concat_pooling_gives_means_and_largest_values_of_real_tokens() -> None:
    connector = made("concat_pool")
    real = torch.tensor([[True, False, True], [False, False, False]])
    x = torch.tensor([[1.0, 9.0, -4.0], [5.0, 6.0, 7.0]]).unsqueeze(2).expand(-1, -1, INPUTS)
    weight = torch.tensor([[3.0, 1.0, 1.0]] * 2)
    pooled = torch.tensor([[-0.25, 1.0] * INPUTS, [0.0] * 2 * INPUTS])
    out = connector(Tokens(x, real, weight))
    assert torch.allclose(out.x[:, 0], connector.project(pooled), atol=1e-6)
    assert out.real().tolist() == [[True], [False]]


@torch.no_grad()
def test_pixel_shuffle_is_the_inverse_of_upsampling_by_pixels() -> None:
    connector, given = made("pixel_shuffle", (4, 6)), tokens(24)
    image = given.x.transpose(1, 2).unflatten(2, (4, 6))
    wide = torch.nn.functional.pixel_unshuffle(image, 2).flatten(2).transpose(1, 2)
    assert torch.allclose(connector(given).x, connector.project(wide), atol=1e-6)


@torch.no_grad()
def test_a_region_is_read_by_its_own_coarse_token_only() -> None:
    connector, given = made("region_cross_attention", (4, 4)), tokens(16)
    changed = given.x.clone()
    changed[:, 5] += 1  # row 1, column 1: the first square
    before, after = connector(given).x, connector(Tokens(changed)).x
    assert torch.equal(before[:, 1:], after[:, 1:])
    assert (before[:, 0] - after[:, 0]).abs().max() > 1e-3


@torch.no_grad()
def test_region_attention_equals_its_formula() -> None:
    connector, given = made("region_cross_attention", (2, 2)), tokens(4)
    found = Tokens(connector.coarse(given.x.mean(dim=1, keepdim=True)))
    source = Tokens(connector.fine(given.x))
    for layer in connector.layers:
        found = layer(found, source)
    assert torch.allclose(connector(given).x, connector.norm(found.x), atol=1e-5)


@torch.no_grad()
def test_groups_are_added_before_their_layers() -> None:
    connector, given = made("deep_stack", (4, 4)), tokens(16)
    groups = connector.levels(given)
    picked = connector.project(given.x.unflatten(1, (2, 2, 2, 2)).permute(0, 1, 3, 2, 4, 5).flatten(3, 4).flatten(1, 2))
    assert len(groups) == 4
    for part, group in enumerate(groups):
        assert torch.allclose(group.x, picked[:, :, part], atol=1e-6)
    first = connector.layers[0](Tokens(groups[0].x + groups[1].x))
    last = connector.layers[1](Tokens(first.x + groups[2].x + groups[3].x))
    assert torch.allclose(connector(given).x, connector.norm(last.x), atol=1e-5)


@torch.no_grad()
def test_the_resampler_reads_tokens_and_queries_at_once() -> None:
    connector, given = made("resampler"), tokens(5)
    found = Tokens(connector.queries.expand(2, -1, -1))
    for layer in connector.layers:
        found = layer(found, Tokens(torch.cat([connector.project(given.x), found.x], dim=1)))
    assert torch.allclose(connector(given).x, connector.norm(found.x), atol=1e-6)


def operations(name: str, count: int) -> int:
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        made(name, (count,))(tokens(count, rows=1))
    return counter.get_total_flops()


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"deep_stack"}))
def test_the_cost_grows_with_the_tokens_and_not_with_their_square(name: str) -> None:
    once, twice, four_times = (operations(name, count) for count in (8, 16, 32))
    assert four_times - twice == 2 * (twice - once)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: tiny.network(connector="glue"), r"unknown connector 'glue'; known are .*resampler"),
        (lambda: made("resampler", blocks=()), "at least one block"),
        (lambda: config("pixel_shuffle", fold=99), "fold must be at most 32"),
        (lambda: config("q_former", blocks=(BlockConfig(reduce=ReduceConfig("pool", 0.5)),)), "must not reduce"),
        (
            lambda: make_connector(
                EncoderConfig(
                    6, blocks=(BlockConfig(reduce=ReduceConfig("pool", 0.5)),), connector=config("deep_stack")
                ),
                (4,),
                precision="float32",
                dropout=0.0,
            ),
            r"a reduction before it would part; .*'resampler'",
        ),
        (lambda: make_connector(EncoderConfig(), (), precision="float32", dropout=0.0), "has no connector"),
    ],
)
def test_what_cannot_connect_is_refused(call: Any, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        call()


def network(name: str, *names: str, fusion: str = "late_fusion", **sizes: Any) -> Multimodal:
    """A network of little but its connectors."""
    sizes = {"depth": 1, "connector": name, "connector_dim": 12, "queries": 3, **sizes}
    return tiny.network(fusion, *names, **sizes)


@pytest.mark.parametrize("fusion", ["late_fusion", "early_fusion"])
@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_every_fusion_sees_its_tokens_and_any_modality_may_be_missing(name: str, fusion: str) -> None:
    model = network(name, fusion=fusion, exits=True)
    streams = model.encode_all(BATCH)
    for modality, stream in streams.items():
        assert stream.x.shape[2] == 12
        assert model.exit(modality, stream).shape == (3, 3)
    present = torch.tensor([True, False, True])
    mixed = model(Batch(BATCH.inputs, {"picture": present}))
    without = model(BATCH.only(*(n for n in tiny.NAMES if n != "picture")))
    assert torch.allclose(mixed[~present], without[~present], atol=1e-5)
    assert torch.allclose(mixed[present], model(BATCH)[present], atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_reach_every_parameter(name: str) -> None:
    model = network(name)
    sum(s.x.square().sum() for s in model.encode_all(BATCH).values()).backward()
    used = [(n, p) for part in (model.connectors, model.encoders) for n, p in part.named_parameters()]
    left = [n for n, p in used if p.grad is None or not p.grad.abs().sum() > 0]
    assert all("facts" in n and name in ("resampler", "q_former", "region_cross_attention", "deep_stack") for n in left)


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_it_survives_the_disk_and_counts_its_parts(name: str, tmp_path: Any) -> None:
    model = network(name)
    loaded = load_model(save_model(model, tmp_path))
    assert ModelConfig.from_dict(model.config.to_dict()) == loaded.config == model.config
    assert torch.equal(loaded(BATCH), model(BATCH))
    assert sum(model.parameters_by_part().values()) == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_units_can_be_shuffled_within_their_group(name: str) -> None:
    """A group that missed a place, or mistook its layout, would mix up units."""
    model, batch = network(name, "picture", "words"), BATCH.only("picture", "words")
    expected = model(batch)
    for group in trace(model):
        shuffled = copy.deepcopy(model)
        order = torch.randperm(group.count, generator=torch.Generator().manual_seed(1))
        for cut in group.cuts:
            tensor = shuffled.state_dict()[cut.name]
            here, there = (cut.index(u, group.count).flatten() for u in (torch.arange(group.count), order))
            tensor.index_copy_(cut.axis, here, tensor.index_select(cut.axis, there))
        assert torch.allclose(shuffled(batch), expected, atol=1e-5), (group.path, group.owner)


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_of_a_connector_belongs_to_a_group(name: str) -> None:
    model = network(name)
    traced = {cut.name for group in trace(model, *KINDS) for cut in group.cuts}
    assert {n for n, _ in model.named_parameters() if n.startswith("connectors.")} <= traced


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_pruning_and_integers(name: str) -> None:
    model, batch = network(name, "picture", "words"), BATCH.only("picture", "words")
    techniques: list[Any] = [PruneWidth(importance="activation"), PruneChannels(), PruneHeads(importance="activation")]
    small = compress(model, techniques, [batch])
    for part in ("picture.encode", "words.encode"):
        assert small.parameters_by_part()[part] < model.parameters_by_part()[part]
    assert small(batch).isfinite().all()
    for technique in (Int8Weights(), Int8()):
        rounded = compress(model, [technique], [batch])
        assert (rounded(batch) - model(batch)).abs().max() < 0.1 * model(batch).abs().max()
        assert torch.allclose(graphs.frozen(rounded)(batch), rounded(batch), atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_tokens_are_reduced_before_it_only_where_it_reads_any(name: str) -> None:
    model = network(name, "picture", depth=2)
    if name in FOLDING:
        with pytest.raises(RecipeError, match=f"in their places in its connector '{name}'"):
            compress(model, [KeepTokens(0.5, "stride")])
    else:
        small = compress(model, [KeepTokens(0.5, "stride", after=0)])
        assert small(BATCH.only("picture")).isfinite().all()
        assert sum(small.flops().values()) < sum(model.flops().values())


@pytest.mark.parametrize("name", NAMES)
def test_tokens_are_left_out_while_training_only_where_it_reads_any(name: str) -> None:
    dropping = network(name, "picture").encoders["picture"].drop
    assert isinstance(dropping, torch.nn.Identity) == (name in FOLDING)


def run(graph: bytes, feed: Mapping[str, Tensor]) -> list[np.ndarray[Any, Any]]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    return session.run(None, {name: tensor.numpy() for name, tensor in feed.items()})


CASES = [*((name, "words") for name in NAMES), *((name, "picture") for name in FOLDING)]


@pytest.mark.parametrize(("name", "modality"), CASES)
@torch.no_grad()
def test_the_exported_stage_equals_the_network(name: str, modality: str) -> None:
    """For any number of rows, and any length of a text."""
    model = network(name, modality, depth=0, patch=5, connector_depth=1)
    graph = graphs._encode_graph(model, modality)
    inputs = [BATCH.inputs[modality], BATCH.inputs[modality][:1]]
    if modality == "words":
        inputs += [BATCH.inputs["words"][:2, :7], torch.zeros(2, 3, dtype=torch.int64)]
    for raw in inputs:
        expected, (x, weight) = model.encode(modality, raw), run(graph, {modality: raw})
        real = expected.real()
        assert np.allclose(weight, expected.weights(), atol=1e-5)
        assert np.allclose(x[real.numpy()], expected.x[real], atol=1e-4)


@torch.no_grad()
def test_the_exported_network_equals_it() -> None:
    modalities = {"picture": {"connector": "pixel_shuffle"}, "words": {"connector": "resampler"}}
    model, batch = network("linear", *modalities, depth=0, modalities=modalities), BATCH.only(*modalities)
    graph = graphs.export_fused(model)
    for row in range(3):
        alone = {n: raw[row : row + 1] for n, raw in batch.inputs.items()}
        assert np.allclose(run(graph, alone)[0], model(Batch(alone)), atol=1e-4)
