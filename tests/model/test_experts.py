"""The experts of a layer: what they compute, what they leave out, and that a graph does the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from triptych.errors import ModelError
from triptych.model.config import BlockConfig
from triptych.model.experts import (
    ROUTERS,
    ExpertMlps,
    ExpertMlpsGraph,
    GroupedDense,
    Routing,
    grouped_matmul,
    make_router,
    token_choice,
)
from triptych.system.bundle.graphs import _export

EXPERTS, DIM, HIDDEN = 5, 6, 10


def mlps(precision: Any = "float32", *, experts: int = EXPERTS) -> ExpertMlps:
    torch.manual_seed(0)
    made = ExpertMlps(experts, DIM, HIDDEN, precision)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    if precision == "int8":
        for layer in (made.up, made.down):
            layer.low.fill_(-3.0)
            layer.high.fill_(3.0)
    return made.eval()


def pairs(tokens: int, active: int = 2, *, experts: int = EXPERTS, seed: int = 0) -> Routing:
    """Every token and `active` experts of it."""
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(1, tokens, experts, generator=generator).softmax(dim=-1)
    return token_choice(scores, None, active, normalised=False)


def by_hand(made: ExpertMlps, x: Tensor, routing: Routing) -> Tensor:
    """Pair by pair."""
    out = torch.zeros_like(x)
    up, down = made.up, made.down
    for token, expert, gate, kept in zip(routing.token, routing.expert, routing.gate, routing.working(), strict=True):
        hidden = functional.gelu(functional.linear(x[token], up.weight[expert], up.bias[expert]))
        out[token] += kept * gate * functional.linear(hidden, down.weight[expert], down.bias[expert])
    return out


def close(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.allclose(one, other, atol=1e-5)


@pytest.mark.parametrize("sizes", [(3, 8, 12), (4, 5, 7), (1, 1, 1)])
def test_a_grouped_product_is_one_product_per_group_and_so_is_its_gradient(sizes: tuple[int, int, int]) -> None:
    experts, inputs, outputs = sizes
    counts = torch.tensor([2, 0, 5, 1])[:experts]
    rows = torch.randn(int(counts.sum()), inputs, requires_grad=True)
    weight = torch.randn(experts, outputs, inputs, requires_grad=True)
    expert = torch.arange(experts).repeat_interleave(counts)
    wanted = torch.einsum("ri,roi->ro", rows, weight[expert])
    found = grouped_matmul(rows, weight, counts)
    assert close(found, wanted)
    seed = torch.randn_like(wanted)
    gradients = [torch.autograd.grad(out, (rows, weight), seed) for out in (found, wanted)]
    assert all(close(one, other) for one, other in zip(*gradients, strict=True))


@pytest.mark.parametrize("active", [1, 3, EXPERTS])
@torch.no_grad()
def test_experts_answer_what_going_through_the_pairs_answers(active: int) -> None:
    made, x, routing = mlps(), torch.randn(9, DIM), pairs(9, active)
    assert close(made(x, routing), by_hand(made, x, routing))
    some = routing.only(routing.gate >= routing.gate.median())
    assert close(made(x, some), by_hand(made, x, some))
    assert not close(made(x, some), made(x, routing))
    none = routing.only(torch.zeros_like(routing.token, dtype=torch.bool))
    assert torch.equal(made(x, none), torch.zeros_like(x))


@torch.no_grad()
def test_pairs_that_are_left_out_are_not_computed() -> None:
    made, x, routing = mlps(), torch.randn(9, DIM), pairs(9, 2)
    seen: list[int] = []
    made.up.register_forward_pre_hook(lambda _layer, inputs: seen.append(len(inputs[0])))
    some = routing.only(torch.arange(18) % 3 == 0)
    made(x, some)
    assert seen == [6]
    x[~torch.isin(torch.arange(9), some.token[some.working()])] = torch.nan
    assert made(x, some).isfinite().all()


def test_gradients_flow_through_experts_and_gates() -> None:
    made, x, routing = mlps(), torch.randn(9, DIM, requires_grad=True), pairs(9, 2)
    gate = routing.gate.clone().requires_grad_()
    routing = Routing(routing.token, routing.expert, gate, torch.arange(18) % 3 == 0, routing.scores)
    seed = torch.randn(9, DIM)
    wanted = torch.autograd.grad(by_hand(made, x, routing), (x, gate, *made.parameters()), seed)
    found = torch.autograd.grad(made(x, routing), (x, gate, *made.parameters()), seed)
    assert all(close(one, other) for one, other in zip(found, wanted, strict=True))


@torch.no_grad()
def test_bfloat16_training_multiplies_in_bfloat16_and_answers_in_the_type_of_its_input() -> None:
    made, x, routing = mlps(), torch.randn(9, DIM), pairs(9, 2)
    with torch.autocast("cpu", torch.bfloat16):
        assert made.up(x[:5], torch.tensor([5, 0, 0, 0, 0])).dtype == torch.bfloat16
        found = made(x, routing)
    assert found.dtype == torch.float32
    assert torch.allclose(found, made(x, routing), atol=0.1)


@pytest.mark.parametrize("precision", ["float32", "int8_weights", "int8"])
@pytest.mark.parametrize("experts", [1, EXPERTS])
@torch.no_grad()
def test_a_graph_computes_the_same_and_only_what_is_kept(precision: Any, experts: int) -> None:
    made = mlps(precision, experts=experts)
    x = torch.randn(12, DIM)
    routing = pairs(12, min(2, experts), experts=experts)

    class Stage(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mlps = ExpertMlpsGraph(made)

        def forward(self, x: Tensor, kept: Tensor) -> Tensor:
            out: Tensor = self.mlps(x, routing.only(kept > 0))
            return out

    graph = _export(Stage(), [x, torch.ones(len(routing.token))], ["x", "kept"], ["y"], [{}, {}])
    runtime = probed(graph, whole=precision != "int8_weights")
    for share in (1.0, 0.4, 0.0):
        kept = torch.rand(len(routing.token), generator=torch.Generator().manual_seed(1)) < share
        found, *rows = runtime.run(None, {"x": x.numpy(), "kept": kept.float().numpy()})
        assert np.allclose(found, made(x, routing.only(kept)).numpy(), atol=1e-4)
        assert sum(len(part) for part in rows) == int(kept.sum())


def probed(graph: bytes, *, whole: bool) -> onnxruntime.InferenceSession:
    """A session that also gives what goes into every expert's nonlinearity."""
    model = onnx.load_model_from_string(graph)
    for node in model.graph.node:
        if node.op_type == "Gelu":
            model.graph.output.append(onnx.helper.make_tensor_value_info(node.input[0], onnx.TensorProto.FLOAT, None))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    if not whole:  # as the runtime sets up a session for weights that are only stored as integers
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


@torch.no_grad()
def test_integers_stay_close_to_floats() -> None:
    x, routing = torch.randn(9, DIM), pairs(9, 2)
    for precision in ("int8_weights", "int8"):
        rounded = mlps(precision)(x, routing)
        assert torch.allclose(rounded, mlps()(x, routing), atol=0.2)
        assert not torch.equal(rounded, mlps()(x, routing))


def test_an_order_by_expert_puts_what_is_left_out_last() -> None:
    routing = Routing(
        token=torch.arange(6),
        expert=torch.tensor([2, 0, 2, 1, 0, 2]),
        gate=torch.ones(6),
        kept=torch.tensor([True, True, False, True, False, True]),
        scores=torch.zeros(6, 4),
    )
    order, counts = routing.by_expert()
    assert order.tolist() == [1, 3, 0, 5, 2, 4]
    assert counts.tolist() == [1, 1, 2, 0]


@torch.no_grad()
def test_a_token_takes_its_best_experts() -> None:
    scores = torch.tensor([[[0.5, 0.2, 0.3], [0.1, 0.6, 0.3]]])
    routing = token_choice(scores, torch.tensor([[True, False]]), 2, normalised=False)
    assert routing.token.tolist() == [0, 0, 1, 1]
    assert routing.expert.tolist() == [0, 2, 1, 2]
    assert routing.gate.tolist() == pytest.approx([0.5, 0.3, 0.6, 0.3])
    assert routing.working().tolist() == [True, True, False, False]
    assert routing.scores.sum(dim=1).tolist() == pytest.approx([1.0, 0.0])
    assert token_choice(scores, None, 2, normalised=True).gate[:2].tolist() == pytest.approx([0.625, 0.375])


def router(name: str, **block: Any) -> Any:
    torch.manual_seed(0)
    made = make_router(DIM, BlockConfig(**{"experts": EXPERTS, "active": 2, "router": name, **block}))
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn_like(parameter))
    return made.eval()


@pytest.mark.parametrize("name", sorted(ROUTERS))
@torch.no_grad()
def test_what_is_not_real_takes_no_expert_and_changes_nothing(name: str) -> None:
    made, x = router(name), torch.randn(2, 7, DIM)
    mask = torch.tensor([[True] * 4 + [False] * 3, [True] * 7])
    noisy = x.masked_fill(~mask.unsqueeze(-1), 50.0)
    layer = mlps()
    answers = [layer(values.flatten(0, 1), made(values, mask)).view_as(x) for values in (x, noisy)]
    assert close(*answers)
    assert (answers[0][~mask] == 0).all()
    short = x[:1, :4]
    assert close(layer(short[0], made(short)), answers[0][0, :4])
    routing = made(noisy, mask)
    assert not set(routing.token[routing.working()].tolist()) & {4, 5, 6}
    assert close(routing.scores.sum(dim=1), mask.flatten().float())


@pytest.mark.parametrize("name", sorted(ROUTERS))
def test_a_router_leaves_an_auxiliary_loss_while_training_only(name: str) -> None:
    made, x = router(name), torch.randn(2, 7, DIM)
    made(x)
    assert made.auxiliary is None
    made.train()
    made(x)
    once = made.auxiliary
    if once is None:
        return
    made(x)
    assert made.auxiliary.item() == pytest.approx(2 * once.item())
    made.auxiliary.backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in made.parameters())


def test_a_block_names_a_router_and_as_many_experts_as_there_are() -> None:
    with pytest.raises(ModelError, match="unknown router 'dice'; known are"):
        make_router(DIM, BlockConfig(router="dice"))
    with pytest.raises(ModelError, match="9 active experts of 8"):
        BlockConfig(active=9)
    assert GroupedDense(3, 4, 5).extra_repr() == "3 × (4, 5), float32"
