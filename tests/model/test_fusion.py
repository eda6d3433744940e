"""Fusions one by one: formulas by hand, what is missing, how the cost grows, pruning and export."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from tests.model import tiny
from triptych.algorithm import Int8, Int8Weights, PruneChannels, PruneHeads, PruneLayers, PruneWidth, compress
from triptych.algorithm.weights.trace import KINDS, trace
from triptych.errors import ModelError
from triptych.model import Multimodal
from triptych.model.auxiliary import take_auxiliary
from triptych.model.build import NAMES
from triptych.model.config import BlockConfig, FusionConfig
from triptych.model.fusion import FUSIONS, Fusion
from triptych.model.fusion.cross_attention import CrossAttention, ExactCrossAttention, LinearCrossAttention
from triptych.model.fusion.present import balanced_mean, shares
from triptych.model.fusion.product_of_experts import divergence, product
from triptych.model.fusion.tensor import outer
from triptych.system.bundle import graphs
from triptych.tokens import Batch, Tokens

DIMS = {"a": 6, "b": 4, "c": 5}
OF_TOKENS = ("bottleneck", "cross", "early", "hybrid", "linear_cross", "perceiver")
NEW = tuple(name for name in tiny.NETWORKS if name not in ("late_fusion", "early_fusion", "bottleneck_fusion"))


def made(name: str, dims: Mapping[str, int] = DIMS, **fields: Any) -> Fusion:
    """A fusion of two layers whose every parameter is random."""
    torch.manual_seed(0)
    cls = FUSIONS[name]
    block = BlockConfig(mixer=cls.mixer, heads=2, head_dim=4, hidden=12)
    config = FusionConfig(name=name, dim=8, blocks=(block, block) if cls.mixer else (), tensor_dim=2, **fields)
    fusion = cls(dims, config, "float32", 0.1)
    with torch.no_grad():
        for parameter in fusion.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return fusion.eval()


def streams(seed: int = 0, rows: int = 4) -> dict[str, Tokens]:
    """Weighted tokens, tokens with padding, and a single token."""
    generator = torch.Generator().manual_seed(seed)
    a, b, c = (torch.randn(rows, n, DIMS[m], generator=generator) for m, n in (("a", 5), ("b", 3), ("c", 1)))
    weight = torch.rand(rows, 5, generator=generator) + 0.5
    return {"a": Tokens(a, None, weight), "b": Tokens(b, torch.tensor([[True, True, False]] * rows)), "c": Tokens(c)}


def without_rows(tokens: Tokens, here: Tensor) -> Tokens:
    return Tokens(tokens.x, tokens.real() & here.unsqueeze(1), tokens.weight)


@pytest.mark.parametrize("name", sorted(FUSIONS))
@torch.no_grad()
def test_every_subset_has_its_own_finite_answer(name: str) -> None:
    fusion, given = made(name), streams()
    outputs = []
    for count in range(1, 4):
        for subset in itertools.combinations(DIMS, count):
            outputs.append(fusion({n: given[n] for n in subset}))
            assert outputs[-1].shape == (4, fusion.width)
            assert outputs[-1].isfinite().all()
    assert all((one - other).abs().max() > 1e-3 for one, other in itertools.combinations(outputs, 2))


@pytest.mark.parametrize("name", sorted(FUSIONS))
@torch.no_grad()
def test_a_modality_missing_in_a_row_equals_leaving_it_out(name: str) -> None:
    fusion, given = made(name), streams()
    here = torch.tensor([True, False, True, False])
    for count in (1, 2):
        for absent in itertools.combinations(DIMS, count):
            mixed = fusion({n: without_rows(t, here) if n in absent else t for n, t in given.items()})
            left_out = fusion({n: t for n, t in given.items() if n not in absent})
            assert torch.allclose(mixed[~here], left_out[~here], atol=1e-5)
            assert torch.allclose(mixed[here], fusion(given)[here], atol=1e-5)


@pytest.mark.parametrize("name", sorted(FUSIONS))
@torch.no_grad()
def test_a_row_without_anything_stays_finite(name: str) -> None:
    nothing = torch.zeros(4, dtype=torch.bool)
    assert made(name)({n: without_rows(t, nothing) for n, t in streams().items()}).isfinite().all()


@pytest.mark.parametrize("name", sorted(FUSIONS))
@torch.no_grad()
def test_tokens_that_are_not_real_have_no_influence(name: str) -> None:
    fusion, given = made(name), streams()
    padded = given["b"].x.masked_fill(~given["b"].real().unsqueeze(-1), 100.0)
    assert torch.allclose(fusion({**given, "b": given["b"].with_x(padded)}), fusion(given), atol=1e-5)
    shorter = {**given, "b": Tokens(given["b"].x[:, :2])}
    assert torch.allclose(fusion(shorter), fusion(given), atol=1e-5)


@pytest.mark.parametrize("name", sorted(FUSIONS))
@torch.no_grad()
def test_a_token_of_weight_two_counts_like_two_tokens(name: str) -> None:
    fusion, given = made(name), streams()
    x = given["b"].x
    twice = {**given, "b": Tokens(torch.cat([x, x[:, 2:]], dim=1))}
    heavy = {**given, "b": Tokens(x, None, torch.tensor([[1.0, 1.0, 2.0]] * 4))}
    assert torch.allclose(fusion(twice), fusion(heavy), atol=1e-5)


@pytest.mark.parametrize("name", OF_TOKENS)
@torch.no_grad()
def test_a_network_of_one_modality_uses_every_parameter(name: str) -> None:
    fusion = made(name, {"a": 6})
    with torch.enable_grad():
        fusion({"a": streams()["a"]}).square().sum().backward()
    assert [n for n, p in fusion.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


def test_shares_by_hand() -> None:
    here = torch.tensor([[True, True, False], [True, False, False]])
    parts = [Tokens(torch.full((3, 1, 1), 2.0 + m), here[m].unsqueeze(1)) for m in range(2)]
    assert shares(parts).tolist() == [[0.5, 1.0, 0.0], [0.5, 0.0, 0.0]]
    assert balanced_mean(parts).flatten().tolist() == [2.5, 2.0, 0.0]


def test_the_tensor_product_by_hand() -> None:
    one, other = torch.tensor([[2.0]]), torch.tensor([[3.0]])
    assert outer(torch.stack([one, other])).tolist() == [[6, 2, 3, 1]]
    one, other = torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 4.0]])
    assert outer(torch.stack([one, other])).tolist() == [[3, 4, 1, 6, 8, 2, 3, 4, 1]]
    assert outer(torch.stack([torch.zeros(1, 2), other])).tolist() == [[0, 0, 0, 0, 0, 0, 3, 4, 1]]


def test_a_tensor_product_that_is_too_large_is_refused_with_its_size() -> None:
    config = FusionConfig(name="tensor", dim=8, tensor_dim=40)
    with pytest.raises(ModelError, match=r"product of 68921 entries, more than 65536; lower tensor_dim, or use low_ra"):
        FUSIONS["tensor"](DIMS, config, "float32", 0.0)
    assert FUSIONS["tensor"]({"a": 6, "b": 4}, config, "float32", 0.0).width == 8


@torch.no_grad()
def test_low_rank_fusion_contracts_the_tensor_that_it_factorises() -> None:
    fusion, given = made("low_rank", tensor_rank=3), streams()
    fusion.norm = nn.Identity()
    factors = []
    for number, name in enumerate(DIMS):
        weight = fusion.vectors.project[name].weight.unflatten(0, (8, 3))
        factors.append(torch.cat([weight, fusion.one[number].unsqueeze(-1)], dim=-1))
    whole = torch.einsum("hra,hrb,hrc->habc", *factors)
    extended = [torch.cat([given[n].mean(), torch.ones(4, 1)], dim=1) for n in DIMS]
    expected = torch.einsum("habc,na,nb,nc->nh", whole, *extended)
    assert torch.allclose(fusion(given), expected, atol=1e-4)


@torch.no_grad()
def test_low_rank_fusion_of_identities_is_the_elementwise_product() -> None:
    fusion = FUSIONS["low_rank"]({"a": 2, "b": 2}, FusionConfig(dim=2, tensor_rank=1), "float32", 0.0)
    fusion.norm = nn.Identity()
    for project in fusion.vectors.project.values():
        project.weight.copy_(torch.eye(2))
    pair = {"a": Tokens(torch.tensor([[[2.0, 3.0]]])), "b": Tokens(torch.tensor([[[5.0, 7.0]]]))}
    assert fusion(pair).tolist() == [[3 * 6, 4 * 8]]  # with the appended ones
    fusion.one.zero_()
    assert fusion(pair).tolist() == [[10, 21]]


@torch.no_grad()
def test_multiplicative_fusion_by_hand() -> None:
    fusion = FUSIONS["multiplicative"]({"a": 1, "b": 1}, FusionConfig(dim=1), "float32", 0.0)
    for project in fusion.vectors.project.values():
        project.weight.fill_(1.0)
    values = torch.tensor([0.5, -0.25])
    pair = {name: Tokens(value.atanh().reshape(1, 1, 1)) for name, value in zip("ab", values, strict=True)}
    assert fusion(pair).item() == pytest.approx(0.5 - 0.25 - 0.125)
    assert fusion({"a": pair["a"]}).item() == pytest.approx(0.5 + 0.5)


@torch.no_grad()
def test_a_product_of_experts_by_hand() -> None:
    mean, precision = product(torch.tensor([[[2.0]], [[-1.0]]]), torch.tensor([[[3.0]], [[4.0]]]))
    assert (mean.item(), precision.item()) == (pytest.approx((6 - 4) / 8), 8)
    prior, unit = product(torch.ones(2, 1, 1), torch.zeros(2, 1, 1))
    assert (prior.item(), unit.item()) == (0, 1)
    fusion = FUSIONS["product_of_experts"]({"a": 1}, FusionConfig(dim=1), "float32", 0.0).eval()
    fusion.experts.project["a"].weight.copy_(torch.tensor([[1.0], [0.0]]))
    fusion.experts.project["a"].bias.copy_(torch.tensor([0.0, torch.log(torch.tensor(3.0))]))
    assert fusion({"a": Tokens(torch.tensor([[[8.0]]]))}).item() == pytest.approx(6.0)


@torch.no_grad()
def test_experts_are_sampled_while_training_around_the_mean_with_their_precision() -> None:
    fusion = made("product_of_experts", {"c": 5})
    given = {"c": Tokens(streams(rows=1)["c"].x.expand(20_000, -1, -1))}
    mean = fusion(given)
    assert torch.equal(mean, fusion(given))
    samples = fusion.train()(given)
    precision = 1 + fusion.experts(given)[0].unflatten(-1, (-1, 2))[0, 0, :, 1].exp()
    assert torch.allclose(samples.mean(dim=0), mean[0], atol=0.05)
    assert torch.allclose(samples.var(dim=0) * precision, torch.ones(8), atol=0.1)


def test_the_divergence_from_the_prior_by_hand_and_by_torch() -> None:
    mean, precision = torch.tensor([[2.0, 0.0], [0.0, 0.0]]), torch.tensor([[4.0, 1.0], [1.0, 1.0]])
    assert divergence(mean, precision).tolist() == pytest.approx([(4 + 0.25 - 1 + math.log(4)) / 2, 0])
    mean, precision = torch.randn(3, 5), torch.rand(3, 5) + 0.5
    one, prior = Normal(mean, precision.rsqrt()), Normal(torch.zeros(3, 5), torch.ones(3, 5))
    assert torch.allclose(divergence(mean, precision), kl_divergence(one, prior).sum(dim=1), atol=1e-5)


def test_the_divergence_is_paid_while_training_only() -> None:
    fusion, given = made("product_of_experts"), streams()
    fusion(given)
    assert take_auxiliary(fusion) == []
    fusion.train()(given)
    copy.deepcopy(fusion)  # in the middle of a step
    (loss,) = take_auxiliary(fusion)
    loss.backward()
    assert all(experts.weight.grad.abs().sum() > 0 for experts in fusion.experts.project.values())
    assert take_auxiliary(fusion) == []
    nowhere = {name: without_rows(tokens, torch.zeros(4, dtype=torch.bool)) for name, tokens in given.items()}
    fusion(nowhere)
    assert take_auxiliary(fusion)[0].item() == 0


@torch.no_grad()
def test_gates_add_up_to_one_over_what_a_row_holds() -> None:
    fusion, given = made("gated"), streams()
    given["b"] = without_rows(given["b"], torch.tensor([True, False, True, False]))
    vectors, exists = fusion.vectors(given)
    gates = fusion.gates(vectors, exists)
    assert torch.allclose(gates.sum(dim=0), torch.ones(4, 8))
    assert (gates[1, [1, 3]] == 0).all()
    assert (gates[1, [0, 2]] > 0).all()
    assert gates.std(dim=1).min() > 0
    vectors, exists = fusion.vectors({"c": given["c"]})
    assert fusion.gates(vectors, exists)[:, 0, 0].tolist() == [0, 0, 1]


@torch.no_grad()
def test_gates_of_two_modalities_are_the_sigmoid_of_the_paper() -> None:
    fusion = made("gated", {"a": 6, "b": 4})
    vectors, exists = fusion.vectors({n: streams()[n] for n in "ab"})
    one, other = fusion.gate(vectors.permute(1, 2, 0).flatten(1)).unflatten(1, (8, 2)).unbind(-1)
    gate = (one - other).sigmoid()
    expected = gate * vectors[0].tanh() + (1 - gate) * vectors[1].tanh()
    assert torch.allclose((fusion.gates(vectors, exists) * vectors.tanh()).sum(dim=0), expected, atol=1e-6)


def head_parts(attention: CrossAttention, x: Tensor, source: Tokens) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Query, key and value of every head."""
    query, pairs = attention.query(x), attention.key_value(source.x)
    return [(query[..., 4 * h : 4 * h + 4], *pairs[..., 8 * h : 8 * h + 8].split(4, dim=-1)) for h in range(2)]


@pytest.mark.parametrize("cls", [ExactCrossAttention, LinearCrossAttention])
@torch.no_grad()
def test_cross_attention_equals_its_formula(cls: type[CrossAttention]) -> None:
    torch.manual_seed(0)
    attention = cls(8, BlockConfig(heads=2, head_dim=4), "float32")
    x, weight = torch.randn(1, 2, 8), torch.tensor([[1.0, 2.0, 3.0]])
    source = Tokens(torch.randn(1, 3, 8), torch.tensor([[True, True, False]]), weight)
    heads = []
    for query, key, value in head_parts(attention, x, source):
        read = torch.zeros(2, 4)
        for i, j in itertools.product(range(2), range(2)):
            likeness = [_likeness(cls, query[0, i], key[0, other]) * weight[0, other] for other in range(2)]
            read[i] += likeness[j] / sum(likeness) * value[0, j]
        heads.append(read)
    assert torch.allclose(attention(x, source)[0], attention.out(torch.cat(heads, dim=1)), atol=1e-5)


def _likeness(cls: type[CrossAttention], query: Tensor, key: Tensor) -> Tensor:
    if cls is ExactCrossAttention:
        return (query @ key / 2).exp()
    query, key = (torch.where(v > 0, v + 1, v.exp()) for v in (query, key))
    return query @ key


@pytest.mark.parametrize("cls", [ExactCrossAttention, LinearCrossAttention])
@torch.no_grad()
def test_reading_nothing_gives_zero(cls: type[CrossAttention]) -> None:
    attention = cls(8, BlockConfig(heads=2, head_dim=4), "float32")
    attention.out.bias.fill_(1.0)
    mask = torch.tensor([[False, False], [True, False]])
    read = attention(torch.randn(2, 3, 8), Tokens(torch.randn(2, 2, 8), mask))
    assert (read[0] == 0).all()
    assert (read[1] != 0).any()


def operations(name: str, tokens: int, modalities: int = 2) -> int:
    """Floating-point operations of a fusion of equally long modalities."""
    dims = {f"m{number}": 8 for number in range(modalities)}
    given = {modality: Tokens(torch.zeros(1, tokens, 8)) for modality in dims}
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        made(name, dims)(given)
    return counter.get_total_flops()


def test_linear_cross_attention_grows_with_the_tokens_and_exact_with_their_square() -> None:
    once, twice, four_times = (operations("linear_cross", n) for n in (8, 16, 32))
    assert four_times - twice == 2 * (twice - once)
    for name in ("cross", "hybrid", "early"):
        once, twice, four_times = (operations(name, n) for n in (8, 16, 32))
        square = (four_times - 3 * twice + 2 * once) // 6
        pairs = 2 * 2 + 2 * 2  # layers · (ordered pairs + modalities); one map over both is as large for early fusion
        assert square == pairs * 2 * 2 * 8 * 8**2  # of two products of two operations, 8 wide, for 8² pairs of tokens


def test_bottlenecks_grow_with_the_modalities_and_pairs_with_their_square() -> None:
    one, two, three = (operations("bottleneck", 8, count) for count in (1, 2, 3))
    assert three - two == two - one
    for name in ("cross", "early"):
        one, two, three = (operations(name, 8, count) for count in (1, 2, 3))
        assert three - two > two - one


@pytest.mark.parametrize("name", [name for name in FUSIONS if name not in OF_TOKENS])
def test_fusions_of_vectors_need_no_more_for_more_tokens(name: str) -> None:
    assert operations(name, 64) == operations(name, 8)


def network(name: str, *names: str, **sizes: Any) -> Multimodal:
    """A network of little but its fusion, over three modalities or the named ones."""
    sizes = {"depth": 0, "tensor_dim": 2, "dim": 12, **sizes}
    return tiny.network(name, *(names or ("motion", "words", "facts")), **sizes)


BATCH = tiny.batch(3, "motion", "words", "facts")


@pytest.mark.parametrize("name", NEW)
@torch.no_grad()
def test_units_can_be_shuffled_within_their_group(name: str) -> None:
    """A group that missed a place, or mistook its layout, would mix up units."""
    model = network(name, "motion", "facts", fusion_depth=1)
    batch = BATCH.only("motion", "facts")
    expected = model(batch)
    for group in trace(model):
        shuffled = copy.deepcopy(model)
        order = torch.randperm(group.count, generator=torch.Generator().manual_seed(1))
        for cut in group.cuts:
            tensor = shuffled.state_dict()[cut.name]
            here, there = (cut.index(u, group.count).flatten() for u in (torch.arange(group.count), order))
            tensor.index_copy_(cut.axis, here, tensor.index_select(cut.axis, there))
        assert torch.allclose(shuffled(batch), expected, atol=1e-5), (group.path, group.owner)


@pytest.mark.parametrize("name", NEW)
def test_every_parameter_belongs_to_a_group(name: str) -> None:
    model = network(name)
    traced = {cut.name for group in trace(model, *KINDS) for cut in group.cuts}
    left = {n for n, _ in model.named_parameters()} - traced - {"head.out.bias"}
    assert all(n.startswith("fusion.vectors.project.") and n.endswith(".bias") for n in left)
    assert bool(left) == (name == "tensor_fusion")  # its factors have a size of their own, which pruning leaves alone


@pytest.mark.parametrize("name", NEW)
@torch.no_grad()
def test_pruning_makes_it_smaller(name: str) -> None:
    model = network(name)
    techniques: list[Any] = [PruneWidth(importance="activation"), PruneChannels()]
    if model.config.fusion.blocks:
        techniques += [PruneHeads(importance="activation"), PruneLayers()]
    for technique in techniques:
        small = compress(model, [technique], [BATCH])
        assert small(BATCH).isfinite().all()
        assert small.parameters_by_part()["decide"] < model.parameters_by_part()["decide"]


@pytest.mark.parametrize("name", sorted(name for name, fusion in NAMES.items() if fusion in OF_TOKENS))
@torch.no_grad()
def test_a_layer_that_does_nothing_goes_first_and_is_not_missed(name: str) -> None:
    model = network(name)
    for n, parameter in model.named_parameters():
        if ".layers.0." in n and (".out." in n or ".down." in n):
            parameter.zero_()
    small = compress(model, [PruneLayers(0.5)], [BATCH])
    assert len(small.config.fusion.blocks) == 1
    assert torch.allclose(small(BATCH), model(BATCH), atol=1e-5)


@pytest.mark.parametrize("technique", [Int8Weights(), Int8()], ids=repr)
@pytest.mark.parametrize("name", NEW)
@torch.no_grad()
def test_integers_stay_close_for_any_subset(name: str, technique: Any) -> None:
    model = network(name)
    subsets = [BATCH, BATCH.only("words"), BATCH.only("motion", "facts")]
    small = compress(model, [technique], subsets)
    for given in subsets:
        assert (small(given) - model(given)).abs().max() < 0.05 * model(given).abs().max()
        assert torch.allclose(graphs.frozen(small)(given), small(given), atol=1e-4)


def run(graph: bytes, feed: Mapping[str, Tensor]) -> np.ndarray[Any, Any]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    return session.run(None, {name: tensor.numpy() for name, tensor in feed.items()})[0]


@pytest.mark.parametrize("name", NEW)
@torch.no_grad()
def test_the_exported_decision_equals_the_network_for_all_and_for_a_subset(name: str) -> None:
    model = network(name, "motion", "words", fusion_depth=1)
    batch = BATCH.only("motion", "words")
    given = model.encode_all(batch)
    graph = graphs._decide_graph(graphs._Decide(graphs.frozen(model)), given)
    for names in (("motion", "words"), ("motion",), ("words",)):
        feed = {f"{n}.x": tokens.x for n, tokens in given.items()}
        feed |= {f"{n}.mask": t.weights() if n in names else torch.zeros(t.x.shape[:2]) for n, t in given.items()}
        assert np.allclose(run(graph, feed), model(batch.only(*names)), atol=1e-4)
    shorter = Batch({"words": BATCH.inputs["words"][:1, :5]})
    words = model.encode_all(shorter)["words"]
    feed = {"words.x": words.x, "words.mask": words.weights()}
    feed |= {"motion.x": given["motion"].x[:1, :1], "motion.mask": torch.zeros(1, 1)}
    assert np.allclose(run(graph, feed), model(shorter), atol=1e-4)


@pytest.mark.parametrize("name", NEW)
@torch.no_grad()
def test_the_fused_export_equals_the_network(name: str) -> None:
    model = network(name, "words", "facts", depth=0, fusion_depth=1)
    alone = Batch({n: raw[2:] for n, raw in BATCH.only("words", "facts").inputs.items()})
    assert np.allclose(run(graphs.export_fused(model), alone.inputs), model(alone), atol=1e-4)
