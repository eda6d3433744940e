"""Routers by hand, and what is made of experts: low-rank and elastic blocks, upcycled networks, statistics."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch.nn import functional

from tests.model import tiny
from triptych.algorithm import Int8, PruneChannels, at_width, compress
from triptych.errors import ModelError
from triptych.model import ModelConfig, adapt, load_model, save_model, upcycle
from triptych.model.channels import CHANNELS, ElasticMlp, Experts
from triptych.model.channels.elastic_mlp import WIDTHS
from triptych.model.config import AdapterConfig, BlockConfig, FusionConfig
from triptych.model.experts import (
    Routing,
    balance_loss,
    entropy_losses,
    make_router,
    router_statistics,
    watched_routers,
    z_loss,
)
from triptych.model.experts.statistics import RouterStatistics
from triptych.model.fusion import FUSIONS
from triptych.model.fusion.missing_bank import combination
from triptych.system.bundle.graphs import frozen
from triptych.tokens import Tokens

DIM = 6


def routing(expert: list[int], scores: list[list[float]], kept: list[bool] | None = None) -> Routing:
    """One pair for every token."""
    count = len(expert)
    chosen = None if kept is None else torch.tensor(kept)
    return Routing(torch.arange(count), torch.tensor(expert), torch.ones(count), chosen, torch.tensor(scores))


@torch.no_grad()
def test_expert_choice_by_hand() -> None:
    """Two experts that read one feature each take half of the real tokens, rounded up."""
    router: Any = make_router(2, BlockConfig(experts=2, router="expert_choice"))
    router.score.weight.copy_(torch.eye(2))
    x = torch.tensor([[[3.0, 0.0], [2.0, 0.0], [0.0, 1.0], [9.0, -9.0]]])
    taken = router(x, torch.tensor([[True, True, True, False]]))
    pairs = {(int(t), int(e)) for t, e, k in zip(taken.token, taken.expert, taken.working(), strict=True) if k}
    assert pairs == {(0, 0), (1, 0), (2, 1), (1, 1)}
    whole = router(x)
    assert sorted(whole.expert.tolist()) == [0, 0, 1, 1]
    assert whole.gate[0].item() == pytest.approx(1 / (1 + math.exp(-18)))


@torch.no_grad()
def test_a_laplace_gate_is_a_softmax_of_distances() -> None:
    router: Any = make_router(DIM, BlockConfig(experts=4, active=2, router="laplace"))
    x = torch.randn(1, 5, DIM)
    wanted = (-torch.cdist(x[0], router.places)).softmax(dim=-1)
    assert torch.allclose(router(x).scores, wanted, atol=1e-5)
    assert router(router.places.unsqueeze(0)).expert.view(4, 2)[:, 0].tolist() == [0, 1, 2, 3]


def test_balance_and_z_losses_by_hand() -> None:
    even = routing([0, 1], [[0.5, 0.5], [0.5, 0.5]])
    assert balance_loss(even).item() == pytest.approx(0.01)
    assert balance_loss(routing([0, 0], [[0.9, 0.1], [0.7, 0.3]])).item() == pytest.approx(0.01 * 2 * 0.8)
    padded = routing([0, 1], [[0.9, 0.1], [0.0, 0.0]], [True, False])
    assert balance_loss(padded).item() == pytest.approx(0.01 * 2 * 0.9)
    logits = torch.tensor([[[0.0, 0.0], [5.0, 5.0]]])
    assert z_loss(logits, torch.tensor([[True, False]])).item() == pytest.approx(0.001 * math.log(2) ** 2)


def test_entropy_losses_by_hand() -> None:
    """Two sure tokens of one expert, then of two: the first is too few for a threshold of one and a half."""
    local, whole = entropy_losses(torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 0.0]]), math.log(1.5))
    assert (local.item(), whole.item()) == (pytest.approx(0, abs=1e-5), pytest.approx(math.log(1.5), abs=1e-5))
    local, whole = entropy_losses(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), math.log(1.5))
    assert (local.item(), whole.item()) == (pytest.approx(0, abs=1e-5), 0)
    local, _ = entropy_losses(torch.tensor([[0.5, 0.5], [0.5, 0.5]]), 0.0)
    assert local.item() == pytest.approx(math.log(2))


def test_router_statistics_by_hand() -> None:
    one = routing([0, 0, 1], [[0.5, 0.5], [1.0, 0.0], [0.0, 0.0]], [True, True, False])
    two = routing([1, 1], [[0.0, 1.0], [0.5, 0.5]])
    assert router_statistics([one]) == RouterStatistics((1.0, 0.0), pytest.approx(0.5), 1.0, 1.0)
    both = router_statistics([one, two])
    assert both.load == (0.5, 0.5)
    assert both.collapse == pytest.approx(0, abs=1e-6)
    assert both.to_dict()["load"] == [0.5, 0.5]
    third = router_statistics([routing([0, 0, 0, 1], [[1.0, 0.0, 0.0]] * 4)])
    used = math.exp(-0.75 * math.log(0.75) - 0.25 * math.log(0.25))
    assert third.collapse == pytest.approx(1 - (used - 1) / 2)
    nothing = router_statistics([routing([0], [[0.0, 0.0]], [False])])
    assert nothing == RouterStatistics((0.0, 0.0), 0.0, 1.0, 0.0)


@torch.no_grad()
def test_routers_are_watched_by_the_name_of_their_block() -> None:
    model, batch = tiny.network("unified", "words", "picture", channel="experts", depth=1), tiny.batch(3)
    with watched_routers(model) as seen:
        model(batch.only("words", "picture"))
    assert set(seen) == {"shared.layers.0.channel", "fusion.trunk.layers.0.channel", "fusion.trunk.layers.1.channel"}
    assert len(seen["shared.layers.0.channel"]) == 2
    model(batch.only("words"))
    assert len(seen["shared.layers.0.channel"]) == 2


@pytest.mark.parametrize("ranks", [(), (1, 2, 3)])
@torch.no_grad()
def test_low_rank_experts_change_the_weights_by_their_gated_products(ranks: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    block = BlockConfig(hidden=8, experts=3, active=2, rank=2, ranks=ranks)
    channel: Any = CHANNELS["low_rank_experts"](DIM, block, "float32").eval()
    x = torch.randn(1, 1, DIM)
    dense = channel.down.whole(functional.gelu(channel.up.whole(x)))
    assert torch.allclose(channel(x), dense)  # at the start
    for layer in (channel.up, channel.down):
        layer.out.weight.normal_()
    chosen = channel.router(x)
    sizes = ranks or (2, 2, 2)

    def weight(layer: Any) -> torch.Tensor:
        downs, ups = layer.into.weight.split(sizes), layer.out.weight.split(sizes, dim=1)
        pairs = zip(chosen.expert.tolist(), chosen.gate, strict=True)
        return layer.whole.weight + sum(gate * ups[e] @ downs[e] for e, gate in pairs)

    hidden = functional.gelu(functional.linear(x, weight(channel.up), channel.up.whole.bias))
    wanted = functional.linear(hidden, weight(channel.down), channel.down.whole.bias)
    assert torch.allclose(channel(x), wanted, atol=1e-5)


def test_ranks_must_be_one_for_each_expert() -> None:
    with pytest.raises(ModelError, match="ranks must be 3 numbers from 1 to"):
        BlockConfig(experts=3, ranks=(1, 2))
    model = tiny.network("late_fusion", "words", channel="low_rank_experts", experts=2, ranks=(1, 3))
    assert ModelConfig.from_dict(model.config.to_dict()) == model.config
    record = model.config.to_dict()
    record["encoders"]["words"]["blocks"][0]["ranks"] = [1.5, 2]
    with pytest.raises(ModelError, match="ranks must be a list of whole numbers"):
        ModelConfig.from_dict(record)


@torch.no_grad()
def test_an_elastic_block_at_a_width_is_its_first_channels() -> None:
    model, batch = tiny.network("late_fusion", "words", channel="elastic_mlp"), tiny.batch(3, "words")
    half = at_width(model, 0.5)
    assert [block.hidden for block in half.config.encoders["words"].blocks] == [16, 16]
    for layer in model.encoders["words"].blocks.layers:
        layer.channel.down.weight[:, 16:] = 0
    assert torch.allclose(half(batch), model(batch), atol=1e-5)
    with pytest.raises(ModelError, match="has no elastic blocks"):
        at_width(tiny.network("late_fusion", "words"), 0.5)
    with pytest.raises(ModelError, match=r"must be in \(0, 1\], got 0"):
        at_width(model, 0)


def test_an_elastic_block_trains_every_width() -> None:
    torch.manual_seed(0)
    channel = ElasticMlp(DIM, BlockConfig(hidden=8), "float32")
    x, widths = torch.randn(1, 3, DIM), set()
    for _ in range(40):
        channel.zero_grad()
        channel(x).square().sum().backward()
        widths.add(int((channel.down.weight.grad.abs().sum(dim=0) > 0).sum()))
    assert widths == {int(width * 8) for width in WIDTHS}


@pytest.mark.parametrize("network", ["late_fusion", "unified", "perceiver"])
@torch.no_grad()
def test_an_upcycled_network_answers_like_the_dense_one(network: str) -> None:
    dense, batch = tiny.network(network, "words", "motion"), tiny.batch(3, "words", "motion")
    sparse = upcycle(dense, experts=4, active=2)
    assert any(isinstance(part, Experts) for part in sparse.modules())
    assert torch.allclose(sparse(batch), dense(batch), atol=1e-4)
    assert not sparse.training
    for name, parameter in sparse.named_parameters():
        if ".mlps." in name:
            parameter[0] += 1.0
    assert not torch.allclose(sparse(batch), dense(batch), atol=1e-4)


@torch.no_grad()
def test_the_bank_is_indexed_by_what_a_row_holds() -> None:
    exists = torch.tensor([[True, False, True, False], [False, True, True, False]])
    assert combination(exists).tolist() == [0, 1, 2, -1]
    fusion: Any = FUSIONS["missing_bank"]({"a": 4, "b": 4}, FusionConfig(dim=4), "float32", 0.0)
    alone = {"a": Tokens(torch.randn(2, 3, 4))}
    before = fusion(alone)
    fusion.bank[1:] += 1.0  # other combinations
    fusion.bank[0, 0] += 1.0  # the modality that is there
    assert torch.equal(fusion(alone), before)
    fusion.bank[0, 1] += 1.0
    assert not torch.allclose(fusion(alone), before, atol=1e-3)
    with pytest.raises(ModelError, match="at most 6 modalities, got 7"):
        FUSIONS["missing_bank"](dict.fromkeys("abcdefg", 4), FusionConfig(), "float32", 0.0)


def test_what_cannot_be_upcycled_says_why() -> None:
    with pytest.raises(ModelError, match="no block with channel='mlp'"):
        upcycle(tiny.network("late_fusion", "words", channel="kan"))
    with pytest.raises(ModelError, match="merge it first"):
        upcycle(adapt(tiny.network("late_fusion", "words"), AdapterConfig("lora")))


def test_a_network_of_experts_is_pruned_rounded_stored_and_counted(tmp_path: Any) -> None:
    model, batch = tiny.network("late_fusion", "words", channel="experts", experts=3), tiny.batch(4, "words")
    for importance in ("magnitude", "activation", "taylor"):
        lean = compress(model, [PruneChannels(0.5, importance), Int8()], [batch])
        assert lean.encoders["words"].blocks.layers[0].channel.mlps.up.weight.shape == (3, 16, 16)
        assert torch.allclose(frozen(lean)(batch), lean(batch), atol=1e-4)
    save_model(lean, tmp_path / "lean")
    assert torch.equal(load_model(tmp_path / "lean")(batch), lean(batch))
    more = tiny.network("late_fusion", "words", channel="experts", experts=3, active=2)
    pairs = 2 * 12  # of both blocks
    assert more.flops()["words.encode"] - model.flops()["words.encode"] == pairs * 2 * 2 * 16 * 32
