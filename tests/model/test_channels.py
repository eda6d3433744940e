"""Channel blocks one by one: what each computes, what it may look at, and that it can be cut, rounded and exported."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tests.model import tiny
from triptych.algorithm import Int8, compress
from triptych.algorithm.weights.slicing import keep_units
from triptych.algorithm.weights.trace import trace
from triptych.model import ModelConfig
from triptych.model.channels import CHANNELS, Channel
from triptych.model.config import BlockConfig
from triptych.model.dense import GridLayer
from triptych.system.bundle.graphs import _encode_graph, frozen

NEW = sorted(CHANNELS.keys() - {"mlp"})
DIM = 6


def make(name: str, **block: Any) -> Channel:
    """A channel block whose every parameter is random and of sensible size."""
    torch.manual_seed(0)
    channel = CHANNELS[name](DIM, BlockConfig(**{"hidden": 8, "kernel": 3, "knots": 3, **block}), "float32")
    with torch.no_grad():
        for parameter in channel.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return channel


def close(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.allclose(one, other, atol=1e-5)


@pytest.mark.parametrize("name", sorted(CHANNELS.keys() - {"inverted_bottleneck"}))
@torch.no_grad()
def test_other_channel_blocks_see_each_token_alone(name: str) -> None:
    channel, x = make(name).eval(), torch.randn(2, 5, DIM)
    assert close(torch.cat([channel(x[:, t : t + 1]) for t in range(5)], dim=1), channel(x))
    mask = torch.rand(2, 5) < 0.5
    assert close(channel(x, mask)[mask], channel(x)[mask])


@torch.no_grad()
def test_the_gate_by_hand() -> None:
    """An open gate passes the perceptron's value on, a shut one nothing."""
    channel: Any = CHANNELS["gated_mlp"](1, BlockConfig(hidden=2), "float32")
    channel.gate.weight.copy_(torch.tensor([[1.0], [-100.0]]))
    channel.up.weight.copy_(torch.tensor([[3.0], [5.0]]))
    channel.down.weight.copy_(torch.tensor([[1.0, 1.0]]))
    silu = 2 / (1 + math.exp(-2))
    assert channel(torch.tensor([[[2.0]]])).item() == pytest.approx(silu * 6)


@torch.no_grad()
def test_an_inverted_bottleneck_sees_its_neighbours_and_no_further() -> None:
    channel, x = make("inverted_bottleneck", kernel=5), torch.randn(1, 9, DIM)
    changed = x.clone()
    changed[:, 4] += 1.0
    moved = (channel(x) - channel(changed)).abs().amax(dim=-1)[0] > 1e-4
    assert moved.tolist() == [False, False, True, True, True, True, True, False, False]


@torch.no_grad()
def test_an_inverted_bottleneck_takes_tokens_that_are_not_real_for_the_end() -> None:
    channel, x = make("inverted_bottleneck"), torch.randn(1, 9, DIM)
    mask = (torch.arange(9) < 5).unsqueeze(0)
    noisy = x.masked_fill(~mask.unsqueeze(-1), 50.0)
    assert close(channel(noisy, mask)[:, :5], channel(x[:, :5]))


@torch.no_grad()
def test_an_inverted_bottleneck_whose_convolution_does_nothing_is_two_layers() -> None:
    channel: Any = make("inverted_bottleneck")
    channel.conv.weight.zero_()[..., 1] = 1.0
    channel.conv.bias.zero_()
    x = torch.randn(2, 5, DIM)
    assert close(channel(x), channel.down(functional.gelu(functional.gelu(channel.up(x)))))


@torch.no_grad()
def test_a_kolmogorov_arnold_edge_by_hand() -> None:
    channel: Any = CHANNELS["kan"](1, BlockConfig(hidden=1, knots=3), "float32")
    assert channel.places.tolist() == [-2.0, 0.0, 2.0]
    found = channel._features(torch.tensor([[2.0]]))[0].tolist()
    assert found == pytest.approx([2 / (1 + math.exp(-2)), math.exp(-4), math.exp(-1), 1.0])
    assert CHANNELS["kan"](1, BlockConfig(hidden=1, knots=1), "float32")(torch.ones(1, 1, 1)).isfinite().all()


@torch.no_grad()
def test_a_kolmogorov_arnold_layer_is_a_sum_of_functions_of_one_input() -> None:
    channel: Any = make("kan")

    def layer(*values: float) -> Tensor:
        return channel.up(channel._features(torch.tensor([*values, 0.0, 0.0, 0.0, 0.0])))

    assert close(layer(1.3, -0.4) + layer(0.0, 0.0), layer(1.3, 0.0) + layer(0.0, -0.4))
    assert not close(layer(1.3, 0.0) - layer(0.0, 0.0), layer(2.6, 0.0) - layer(1.3, 0.0))  # and they are not lines


@pytest.mark.parametrize("name", NEW)
@pytest.mark.parametrize("network", tiny.NETWORKS)
@torch.no_grad()
def test_every_channel_block_builds_everywhere_and_survives_its_config(network: str, name: str) -> None:
    model = tiny.network(network, channel=name, kernel=3, knots=4)
    assert model(tiny.batch(3)).shape == (3, 3)
    blocks = [block for encoder in model.config.encoders.values() for block in encoder.blocks]
    blocks += model.config.fusion.blocks
    assert {(block.channel, block.knots) for block in blocks} == {(name, 4)}
    assert ModelConfig.from_dict(model.config.to_dict()) == model.config


@pytest.mark.parametrize("name", NEW)
def test_gradients_reach_every_parameter_of_a_channel_block(name: str) -> None:
    channel = make(name)
    channel(torch.randn(2, 5, DIM), torch.rand(2, 5) < 0.8).square().sum().backward()
    assert [n for n, p in channel.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


@pytest.mark.parametrize("name", NEW)
@torch.no_grad()
def test_hidden_channels_can_be_cut_and_shuffled(name: str) -> None:
    model, batch = tiny.network("late_fusion", "picture", channel=name, depth=1, kernel=3), tiny.batch(2, "picture")
    (group,) = (g for g in trace(model, "hidden") if g.owner.endswith(".channel"))
    order = torch.randperm(group.count)
    units, gone = order[:20].sort().values, order[20:]
    masked, shuffled = copy.deepcopy(model), copy.deepcopy(model)
    for cut in group.cuts:
        here, there = (cut.index(u, group.count).flatten() for u in (torch.arange(group.count), order))
        tensor = shuffled.state_dict()[cut.name]
        tensor.index_copy_(cut.axis, here, tensor.index_select(cut.axis, there))
        if cut.axis == tensor.ndim - 1 and isinstance(masked.get_submodule(cut.name.rpartition(".")[0]), GridLayer):
            masked.state_dict()[cut.name][..., cut.index(gone, group.count).flatten()] = 0
    assert close(keep_units(model, {group: units})(batch), masked(batch))
    assert close(shuffled(batch), model(batch))
    assert not close(masked(batch), model(batch))
    traced = {cut.name for g in trace(model) for cut in g.cuts}
    assert {n for n, _ in model.named_parameters() if ".channel." in n} <= traced


@pytest.mark.parametrize("name", NEW)
@torch.no_grad()
def test_channel_blocks_work_on_the_integer_grid(name: str) -> None:
    model, batch = tiny.network("late_fusion", "words", channel=name, depth=1, kernel=3), tiny.batch(4, "words")
    small = compress(model, [Int8()], [batch])
    channel = small.encoders["words"].blocks.layers[0].channel
    layers = {name: m.precision for name, m in channel.named_modules() if hasattr(m, "precision")}
    assert {precision for layer, precision in layers.items() if not layer.startswith("router.")} == {"int8"}
    assert torch.allclose(small(batch), model(batch), atol=0.1)


@pytest.mark.parametrize("name", NEW)
@torch.no_grad()
def test_exported_channel_blocks_answer_alike_for_any_batch_and_length(name: str) -> None:
    model = tiny.network("late_fusion", "words", channel=name, depth=1, kernel=3)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    graph = _encode_graph(frozen(model), "words")
    runtime = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    for rows, length in ((4, 12), (1, 12), (3, 7), (2, 1)):
        words = tiny.batch(4, "words").inputs["words"][:rows, :length]
        x, _ = runtime.run(None, {"words": words.numpy()})
        tokens = model.encode("words", words)
        assert np.allclose(x[tokens.real().numpy()], tokens.x[tokens.real()].numpy(), atol=1e-4)
