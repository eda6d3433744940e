"""Routes that are left out: which ones, by hand; that padding and neighbours do not matter; that they are not run."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor

from tests.model import tiny
from triptych.errors import ModelError
from triptych.model import ModelConfig, Multimodal
from triptych.model.config import RoutesConfig, RouteWay
from triptych.model.experts import Routing, token_choice
from triptych.model.experts.sparsify import WAYS, pair_scores, sparsified
from triptych.model.experts.statistics import watched_routers
from triptych.model.s3 import expert_blocks, router_share, routers, s3_network, with_routes
from triptych.system.bundle.graphs import _encode_graph, frozen
from triptych.tokens import Batch

SIZES = {**tiny.SIZES, "depth": 1, "fusion_depth": 1, "expansion": 2.0}


def network(*names: str, **options: int) -> Multimodal:
    torch.manual_seed(0)
    model = s3_network(tiny.schema(*names), **{"granularity": 2, "spread": 2, **options}, **SIZES)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model.eval()


def routing(mask: Tensor | None = None) -> Routing:
    """Two rows of two tokens and three experts, two of which each token takes."""
    scores = torch.tensor([[[0.6, 0.3, 0.1], [0.5, 0.1, 0.4]], [[0.2, 0.7, 0.1], [0.05, 0.05, 0.9]]])
    return token_choice(scores, mask, 2, normalised=False)


def kept(way: RouteWay, share: float = 0.5, least: float = 0.0, mask: Tensor | None = None) -> list[bool]:
    found = sparsified(routing(mask), RoutesConfig(way, share, least), 2)
    return found.working().tolist()


def test_the_best_routes_by_hand() -> None:
    assert pair_scores(routing()).tolist() == pytest.approx([0.6, 0.3, 0.5, 0.4, 0.7, 0.2, 0.9, 0.05])
    assert kept("batch") == [True, False, True, False, True, False, True, False]
    assert kept("batch", 0.25) == [False, False, False, False, True, False, True, False]
    assert kept("row", 0.75) == [True, False, True, True, True, True, True, False]
    assert kept("row", 0.25) == [True, False, False, False, False, False, True, False]
    assert kept("score", least=0.4) == [True, False, True, True, True, False, True, False]
    assert sum(kept("random")) == 4


@pytest.mark.parametrize("way", sorted(WAYS))
def test_padding_takes_no_place_among_the_best(way: RouteWay) -> None:
    mask = torch.tensor([[True, True], [True, False]])
    found = kept(way, 0.5, 0.3, mask)
    assert found[6:] == [False, False]
    if way in {"row", "random"}:
        assert sum(found[:4]) == 2
        assert sum(found[4:]) == 1
    if way == "batch":
        assert found == [True, False, True, False, True, False, False, False]


@pytest.mark.parametrize("way", ["random", "row", "score"])
@torch.no_grad()
def test_a_row_does_not_depend_on_its_batch(way: RouteWay) -> None:
    model = with_routes(network("words"), [RoutesConfig(way, 0.4, 0.3)])
    words = tiny.batch(4, "words").inputs["words"]
    together = model.encode("words", words)
    for row in range(4):
        alone = model.encode("words", words[row : row + 1])
        real = alone.real()[0]
        assert torch.allclose(together.x[row][real], alone.x[0][real], atol=1e-5)


@torch.no_grad()
def test_the_way_of_the_paper_does_depend_on_it() -> None:
    model = with_routes(network("words"), [RoutesConfig("batch", 0.3)])
    words = tiny.batch(4, "words").inputs["words"]
    together, alone = model.encode("words", words).x[:1], model.encode("words", words[:1]).x
    assert not torch.allclose(together, alone, atol=1e-3)


@pytest.mark.parametrize("way", sorted(WAYS))
@torch.no_grad()
def test_all_routes_are_the_network_itself(way: RouteWay) -> None:
    model, batch = network("words", "motion"), tiny.batch(3, "words", "motion")
    same = with_routes(model, [RoutesConfig(way, 1.0, 0.0)])
    assert torch.allclose(same(batch), model(batch), atol=1e-6)


@torch.no_grad()
def test_a_token_without_routes_is_left_as_it_was() -> None:
    model = with_routes(network("motion"), [RoutesConfig("score", least=1.0)])
    layer = model.shared.layers[0]
    x = torch.randn(2, 5, 16)
    assert layer.channel(x).abs().sum() == 0


def executed(model: Multimodal, batch: Batch) -> int:
    """Rows that the experts multiply, as their dispatch sees them."""
    with watched_routers(model):
        rows: list[int] = []
        handle = model.shared.layers[0].channel.mlps.up.register_forward_pre_hook(
            lambda _, args: rows.append(len(args[0]))
        )
        model.encode_all(batch)
        handle.remove()
    return sum(rows)


@pytest.mark.parametrize("way", ["batch", "random", "row"])
@torch.no_grad()
def test_fewer_rows_are_multiplied(way: RouteWay) -> None:
    model, batch = network("motion"), tiny.batch(4, "motion")
    counts = [executed(with_routes(model, [RoutesConfig(way, p)]), batch) for p in (1.0, 0.5, 0.1)]
    assert counts[0] == executed(model, batch) == 4 * 10 * 2
    assert counts == [80, 40, 8]


def operations(graph: bytes, words: np.ndarray) -> tuple[int, np.ndarray]:
    """Rows that the graph's experts multiply on an input, counted inside ONNX Runtime, and its answer."""
    import onnx

    model = onnx.load_from_string(graph)
    products = [n.output[0] for n in model.graph.node if n.op_type == "Gemm"]
    model.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in products)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    x, _, *answers = session.run(None, {session.get_inputs()[0].name: words})
    return sum(len(answer) for answer in answers), x


@pytest.mark.parametrize("way", ["row", "score", "random"])
@torch.no_grad()
def test_the_exported_graph_runs_fewer_rows_and_answers_alike(way: RouteWay) -> None:
    model, words = network("words"), tiny.batch(3, "words").inputs["words"]
    counts = []
    for share, least in ((1.0, 0.0), (0.5, 0.28), (0.2, 0.4)):
        sparse = with_routes(model, [RoutesConfig(way, share, least)])
        count, x = operations(_encode_graph(frozen(sparse), "words"), words.numpy())
        tokens = sparse.encode("words", words)
        assert np.allclose(x[tokens.real().numpy()], tokens.x[tokens.real()].numpy(), atol=1e-4)
        assert count == 2 * executed(sparse, Batch({"words": words}))
        counts.append(count)
    assert counts[0] > counts[1] > counts[2]


def test_a_sparse_network_survives_its_config() -> None:
    model = with_routes(network("words", "motion"), [RoutesConfig("score", least=0.25)])
    config = ModelConfig.from_dict(model.config.to_dict())
    assert config == model.config
    assert config.shared is not None
    assert config.shared.blocks[0].routes == RoutesConfig("score", least=0.25)


def test_sizes_of_the_experts_follow_granularity_and_spread() -> None:
    model = network("words", granularity=4, spread=3)
    block = model.config.shared.blocks[0]
    assert (block.experts, block.active, block.hidden) == (12, 4, 8)
    assert expert_blocks(model.config) == [("", 0)]
    assert list(routers(model)) == ["shared.layers.0.channel.router"]
    assert 0 < router_share(s3_network(tiny.schema("words"), granularity=8, spread=4, dim=64, depth=1)) < 0.05


def test_wrong_settings_say_what_to_do() -> None:
    with pytest.raises(ModelError, match="multiple of the granularity 3"):
        network("words", granularity=3)
    with pytest.raises(ModelError, match="one to each"):
        with_routes(network("words"), [])
    with pytest.raises(ModelError, match=r"in \(0, 1\]"):
        RoutesConfig("row", 0.0)
    with pytest.raises(ModelError, match="must be one of"):
        RoutesConfig("luck")  # type: ignore[arg-type]
