"""Mixers one by one: what each computes, that it is the same by another path, and what it costs."""

# long because every member of the family has a definition to be held against

from __future__ import annotations

import copy
import dataclasses
import math
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from tests.model import tiny
from triptych.algorithm import Int8, compress
from triptych.algorithm.rebuild import rebuild
from triptych.algorithm.weights.slicing import keep_units
from triptych.algorithm.weights.trace import trace
from triptych.errors import ModelError
from triptych.model import Multimodal
from triptych.model.config import BlockConfig
from triptych.model.dense import Dense
from triptych.model.encoder import Block
from triptych.model.mixers import MIXERS, Mixer, scan
from triptych.model.mixers.pieces import PIECE, pieces
from triptych.model.mixers.scan import CHUNK, linear_scan
from triptych.system.bundle.graphs import _encode_graph, export_fused, frozen
from triptych.tokens import Batch, Tokens

NEW = sorted(MIXERS.keys() - {"attention", "depthwise", "token_mixing"})
HEADED = ["hashed", "linear", "low_rank", "prob_sparse", "recurrent", "state_space", "window"]
SMALL: dict[str, Any] = {"kernel": 3, "rank": 3, "state": 3, "factor": 2.0, "chunk": 4}
DIM = 8


def make(name: str, *grid: int, seed: int = 0, **block: Any) -> Mixer:
    """A mixer of two heads whose every parameter is random and of sensible size."""
    torch.manual_seed(seed)
    mixer = MIXERS[name](DIM, BlockConfig(**{"heads": 2, "head_dim": 4, **SMALL, **block}), grid, "float32")
    with torch.no_grad():
        for parameter in mixer.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return mixer


def like(mixer: Mixer, name: str, *grid: int, **block: Any) -> Mixer:
    """Another mixer with the same weights where it has them."""
    other = make(name, *grid, **block)
    state = mixer.state_dict()
    other.load_state_dict({key: state.get(key, value) for key, value in other.state_dict().items()})
    return other


def close(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.allclose(one, other, atol=1e-5)


def full_attention(mixer: Any, x: Tensor, allowed: Tensor) -> tuple[Tensor, Tensor]:
    """What attention limited to `allowed` (tokens, tokens) must answer and give to each token, from its definition."""
    query, key, value = mixer._split(x)
    logits = (query @ key.transpose(-1, -2) / 2).masked_fill(~allowed, -math.inf)
    share = logits.softmax(dim=-1)
    return mixer.out((share @ value).transpose(1, 2).flatten(2)), share.mean(dim=(1, 2))


@pytest.mark.parametrize("name", NEW)
@torch.no_grad()
def test_gaps_in_a_sequence_and_their_contents_do_not_matter(name: str) -> None:
    mixer, x = make(name, 3, 4), torch.randn(2, 12, DIM)
    mask = torch.tensor([[True, False, True] * 4, [True] * 7 + [False] * 5])
    noisy = x.masked_fill(~mask.unsqueeze(-1), 50.0)
    one, other = (mixer(Tokens(features, mask)) for features in (x, noisy))
    assert close(one[mask], other[mask])
    assert one.isfinite().all()


@pytest.mark.parametrize("name", ["hashed", "linear", "prob_sparse", "recurrent", "state_space"])
@torch.no_grad()
def test_tokens_that_are_not_real_might_as_well_not_be_there(name: str) -> None:
    mixer, x = make(name, 12), torch.randn(1, 12, DIM)
    mask = torch.tensor([[False, True, True] * 4])
    assert close(mixer(Tokens(x, mask))[mask], mixer(Tokens(x[mask].unsqueeze(0)))[0])


@pytest.mark.parametrize("name", NEW)
@torch.no_grad()
def test_a_row_without_any_real_token_stays_finite(name: str) -> None:
    mixer, tokens = make(name, 6), Tokens(torch.randn(2, 6, DIM), torch.tensor([[False] * 6, [True] * 6]))
    assert mixer(tokens).isfinite().all()
    assert mixer.received(tokens).isfinite().all()


@pytest.mark.parametrize("name", ["linear", "recurrent", "state_space", "prob_sparse"])
@torch.no_grad()
def test_a_token_of_weight_two_counts_like_two_in_a_row(name: str) -> None:
    grids = ((5,), (6,)) if name == "prob_sparse" else ((), ())
    mixer, x = make(name, *grids[0], factor=20.0), torch.randn(1, 5, DIM)
    twice = like(mixer, name, *grids[1], factor=20.0)(Tokens(x[:, [0, 1, 2, 2, 3, 4]]))
    heavy = mixer(Tokens(x, None, torch.tensor([[1.0, 1.0, 2.0, 1.0, 1.0]])))
    assert close(twice[:, [0, 1, 3, 4, 5]], heavy)


@pytest.mark.parametrize("name", ["hashed", "linear", "low_rank", "prob_sparse", "window"])
@torch.no_grad()
def test_what_tokens_receive_adds_up_to_one(name: str) -> None:
    mask = torch.tensor([[True] * 7 + [False] * 5, [True] * 12])
    share = make(name, 12).received(Tokens(torch.randn(2, 12, DIM), mask))
    assert close(share.sum(dim=1), torch.ones(2))
    assert (share >= 0).all()
    assert (share[0, 7:] < 1e-6).all()


@pytest.mark.parametrize("grid", [(9,), (), (3, 3)])
@torch.no_grad()
def test_a_window_over_everything_is_full_attention(grid: tuple[int, ...]) -> None:
    attention, x = make("attention"), torch.randn(2, 9, DIM)
    tokens = Tokens(x, torch.rand(2, 9) < 0.8, torch.rand(2, 9) + 1)
    window = like(attention, "window", *grid, kernel=19)
    real = tokens.real()
    assert close(window(tokens)[real], attention(tokens)[real])
    assert close(window.received(tokens), attention.received(tokens))


@pytest.mark.parametrize(("grid", "kernel"), [((11,), 5), ((11,), 1), ((), 3), ((3, 5), 3), ((2, 7), 7), ((5, 3), 5)])
@torch.no_grad()
def test_a_window_is_attention_to_what_is_near(grid: tuple[int, ...], kernel: int) -> None:
    count = math.prod(grid or (7,))
    place = torch.arange(count)
    row, column = (place // grid[1], place % grid[1]) if len(grid) == 2 else (place * 0, place)
    far = torch.maximum((row[:, None] - row).abs(), (column[:, None] - column).abs())
    mixer, x = make("window", *grid, kernel=kernel), torch.randn(2, count, DIM)
    answer, received = full_attention(mixer, x, far <= kernel // 2)
    assert close(mixer(Tokens(x)), answer)
    assert close(mixer.received(Tokens(x)), received)


@torch.no_grad()
def test_linear_attention_is_its_explicit_formula() -> None:
    mixer, x = make("linear"), torch.randn(2, 6, DIM)
    query, key, value = mixer._split(x)
    likeness = (nn.functional.elu(query) + 1) @ (nn.functional.elu(key) + 1).transpose(-1, -2)
    share = likeness / likeness.sum(dim=-1, keepdim=True)
    assert close(mixer(Tokens(x)), mixer.out((share @ value).transpose(1, 2).flatten(2)))
    assert close(mixer.received(Tokens(x)), share.mean(dim=(1, 2)))


@torch.no_grad()
def test_folding_nothing_together_is_full_attention() -> None:
    attention, x = make("attention"), torch.randn(2, 5, DIM)
    mixer = like(attention, "low_rank", 5, rank=99)
    assert mixer.rank == 5
    for fold in (mixer.fold_keys, mixer.fold_values):
        fold.weight.copy_(torch.eye(5))
    assert close(mixer(Tokens(x)), attention(Tokens(x)))
    assert close(mixer.received(Tokens(x)), attention.received(Tokens(x)))


@pytest.mark.parametrize("name", ["low_rank", "prob_sparse"])
@torch.no_grad()
def test_mixers_of_a_known_length_say_so_and_read_shorter_sequences(name: str) -> None:
    with pytest.raises(ModelError, match="known number of tokens: not after a reduction, nor in a fusion"):
        make(name)
    mixer, x = make(name, 7), torch.randn(2, 7, DIM)
    mask = (torch.arange(7) < 4).expand(2, -1)
    assert close(mixer(Tokens(x[:, :4])), mixer(Tokens(x, mask))[:, :4])
    assert close(mixer.received(Tokens(x[:, :4])), mixer.received(Tokens(x, mask))[:, :4])


def test_pooling_by_hand() -> None:
    mixer = MIXERS["pooling"](1, BlockConfig(kernel=3), (4,), "float32")
    x = torch.tensor([1.0, 3.0, 8.0, 4.0]).reshape(1, 4, 1)
    assert mixer(Tokens(x)).flatten().tolist() == [1.0, 1.0, -3.0, 2.0]
    mask = torch.tensor([[True, True, True, False]])
    assert mixer(Tokens(x, mask))[0, :3, 0].tolist() == [1.0, 1.0, -2.5]
    weight = torch.tensor([[1.0, 1.0, 3.0, 1.0]])
    assert mixer(Tokens(x, None, weight)).flatten().tolist() == pytest.approx([1.0, 2.6, -1.8, 3.0])
    square = MIXERS["pooling"](1, BlockConfig(kernel=3), (2, 2), "float32")
    assert square(Tokens(x)).flatten().tolist() == [3.0, 1.0, -4.0, 0.0]
    assert list(square.parameters()) == []


@pytest.mark.parametrize("count", [1, 2, CHUNK, CHUNK + 1, CHUNK**2 + 3])
def test_a_scan_is_a_loop(count: int) -> None:
    decay, added = torch.rand(2, count, 3), torch.randn(2, count, 3)
    state, states = torch.zeros(2, 3), []
    for t in range(count):
        state = decay[:, t] * state + added[:, t]
        states.append(state)
    assert close(linear_scan(decay, added), torch.stack(states, dim=1))
    if count > 1:
        cut = count // 2
        assert close(linear_scan(decay[:, cut:], added[:, cut:], states[cut - 1]), torch.stack(states[cut:], dim=1))


@pytest.mark.parametrize("name", ["linear", "recurrent", "state_space"])
@pytest.mark.parametrize("marked", [False, True])
def test_a_sequence_in_pieces_is_the_whole(name: str, marked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    mixer, x = make(name), torch.randn(2, 53, DIM)
    tokens = Tokens(x, torch.rand(2, 53) < 0.7, torch.rand(2, 53) + 0.5) if marked else Tokens(x)
    found = []
    for piece in (2**30, 1):
        monkeypatch.setattr("triptych.model.mixers.pieces.PIECE", piece)
        mixer.zero_grad()
        answer = mixer(tokens)
        answer.square().sum().backward()
        found.append((answer.detach(), [p.grad.clone() for p in mixer.parameters() if p.grad is not None]))
    (whole, gradients), (pieced, others) = found
    assert close(whole, pieced)
    assert all(torch.allclose(one, other, rtol=1e-3, atol=1e-3) for one, other in zip(gradients, others, strict=True))


def test_pieces_follow_the_width_and_hold_every_token_once() -> None:
    tokens = Tokens(torch.arange(100.0).reshape(1, 100, 1), None, torch.arange(100.0).reshape(1, 100))
    parts = list(pieces(tokens, PIECE // 32))
    assert [part.x.shape[1] for part in parts] == [32, 32, 32, 4]
    assert torch.equal(torch.cat([part.weights() for part in parts], dim=1), tokens.weights())
    assert len(list(pieces(tokens, 1))) == 1


@pytest.mark.parametrize("name", ["recurrent", "state_space"])
@torch.no_grad()
def test_one_token_after_another_is_all_at_once(name: str) -> None:
    mixer: Any = make(name)
    x = torch.randn(2, 2 * CHUNK + 5, DIM)
    state, answers = None, []
    for t in range(x.shape[1]):
        answer, state = mixer.step(x[:, t], state)
        answers.append(answer)
        assert state.shape == ((2, 8, 3) if name == "state_space" else (2, 8))
    assert torch.allclose(mixer(Tokens(x)), torch.stack(answers, dim=1), atol=1e-4)


@pytest.mark.parametrize("name", ["recurrent", "state_space"])
@torch.no_grad()
def test_recurrences_never_look_ahead(name: str) -> None:
    mixer, x = make(name), torch.randn(1, 20, DIM)
    changed = x.clone()
    changed[:, 13:] += 1.0
    one, other = mixer(Tokens(x)), mixer(Tokens(changed))
    assert close(one[:, :13], other[:, :13])
    assert not close(one[:, 13:], other[:, 13:])


@torch.no_grad()
def test_the_recurrence_by_hand() -> None:
    """A gate of one half: every state lies halfway between the one before and the candidate."""
    mixer: Any = MIXERS["recurrent"](1, BlockConfig(heads=1, head_dim=1), (), "float32")
    for parameter, value in zip(mixer.gate_value.parameters(), ([[0.0], [1.0]], [0.0, 0.0]), strict=True):
        parameter.copy_(torch.tensor(value))
    mixer.out.weight.fill_(1.0)
    assert mixer(Tokens(torch.tensor([[[4.0], [2.0], [0.0]]]))).flatten().tolist() == [2.0, 2.0, 1.0]


@torch.no_grad()
def test_the_state_space_by_hand() -> None:
    """One state of rate 1 run for ln 2 per token: half of it stays, half of the input enters, C doubles it."""
    mixer: Any = MIXERS["state_space"](1, BlockConfig(heads=1, head_dim=1, state=1), (), "float32")
    mixer.step_size.weight.zero_()
    mixer.step_bias.fill_(math.log(math.expm1(math.log(2))))
    mixer.log_rate.zero_()
    mixer.ports.weight.copy_(torch.tensor([[1.0], [2.0]]))
    mixer.value_gate.weight.copy_(torch.tensor([[1.0], [0.0]]))
    mixer.value_gate.bias.copy_(torch.tensor([0.0, 1.0]))
    mixer.out.weight.fill_(1.0)
    answer = mixer(Tokens(torch.tensor([[[1.0], [2.0]]]))).flatten()
    states = (0.5 * 1 * 1, 0.5 * 0.5 + 0.5 * 2 * 2)
    gate = 1 / (1 + math.exp(-1))
    assert answer.tolist() == pytest.approx([(2 * states[0] + 1) * gate, (4 * states[1] + 2) * gate])


@torch.no_grad()
def test_prob_sparse_with_every_query_is_full_attention() -> None:
    attention, x = make("attention"), torch.randn(2, 9, DIM)
    tokens = Tokens(x, torch.tensor([[True] * 6 + [False] * 3, [True] * 9]))
    mixer = like(attention, "prob_sparse", 9, factor=9.0)
    assert mixer.active == 9
    assert close(mixer(tokens)[tokens.real()], attention(tokens)[tokens.real()])
    assert close(mixer.received(tokens), attention.received(tokens))


@torch.no_grad()
def test_only_the_sharpest_queries_of_prob_sparse_attend() -> None:
    mixer, x = make("prob_sparse", 20, factor=1.0, heads=1), torch.randn(1, 20, DIM)
    query, key, value = mixer._split(x)
    assert mixer.active == 3  # the smallest whole number above ln 20
    logits = (query @ key.transpose(-1, -2))[0, 0]
    sampled = logits[:, [0, 6, 13]]
    sharpest = (sampled.amax(dim=1) - sampled.mean(dim=1)).topk(3).indices
    expected = value[0, 0].mean(dim=0).repeat(20, 1)
    expected[sharpest] = ((logits / 2).softmax(dim=-1) @ value[0, 0])[sharpest]
    assert close(mixer(Tokens(x))[0], mixer.out(expected))


@torch.no_grad()
def test_hashed_attention_is_its_definition_token_by_token() -> None:
    mixer, x = make("hashed", 14, heads=1), torch.randn(1, 14, DIM)
    query, value = (part[0, 0] for part in mixer._split(x))
    turned = query @ mixer.directions
    assert turned.shape == (14, 8)
    bucket = torch.cat([turned, -turned], dim=1).argmax(dim=1).tolist()
    order = sorted(range(14), key=lambda token: (bucket[token], token))
    expected, received = torch.zeros(14, 4), torch.zeros(14)
    for rank, token in enumerate(order):
        start = rank // 4 * 4
        others = [t for t in order[max(0, start - 4) : start + 4] if t != token]
        share = (query[token] @ nn.functional.normalize(query[others], dim=1).T).softmax(dim=0)
        expected[token] = share @ value[others]
        received[others] += share / 14
    assert close(mixer(Tokens(x))[0], mixer.out(expected))
    assert close(mixer.received(Tokens(x))[0], received)


@torch.no_grad()
def test_hashing_is_the_same_every_time_and_a_lone_token_reads_itself() -> None:
    one, other = make("hashed", 14, seed=1), make("hashed", 14, seed=2)
    assert torch.equal(one.directions, other.directions)
    x = torch.randn(1, 1, DIM)
    assert close(one(Tokens(x)), one.out(one.query_value(x)[..., 8:]))


class Written(TorchDispatchMode):
    """Counts the values that all operations write."""

    def __init__(self) -> None:
        super().__init__()
        self.values = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.values += out.numel() if isinstance(out, Tensor) else 0
        return out


@torch.no_grad()
def costs(name: str, count: int) -> tuple[int, int]:
    """Multiply-adds, and values written, for one sequence."""
    mixer, tokens = make(name, count), Tokens(torch.randn(1, count, DIM), torch.ones(1, count, dtype=torch.bool))
    with sdpa_kernel(SDPBackend.MATH):
        with FlopCounterMode(display=False) as counter:
            mixer(tokens)
        with Written() as written:
            mixer(tokens)
    return counter.get_total_flops(), written.values


@pytest.mark.parametrize("name", ["hashed", "linear", "low_rank", "pooling", "recurrent", "state_space", "window"])
def test_cost_grows_in_proportion_to_the_tokens(name: str) -> None:
    (few, fewer), (many, more) = costs(name, 1024), costs(name, 4096)
    assert many <= 4.01 * few
    assert more <= 4.1 * fewer


def test_cost_that_does_not_is_noticed() -> None:
    (few, fewer), (many, more) = costs("attention", 256), costs("attention", 1024)
    assert many > 6 * few
    assert more > 8 * fewer
    (few, _), (many, _) = costs("prob_sparse", 256), costs("prob_sparse", 1024)
    assert 4 * few < many < 5.5 * few


@pytest.mark.parametrize("name", HEADED)
def test_gradients_reach_every_parameter_of_a_mixer(name: str) -> None:
    mixer = make(name, 3, 4)
    tokens = Tokens(torch.randn(2, 12, DIM), torch.tensor([[True] * 12, [True] * 9 + [False] * 3]))
    mixer(tokens).square().sum().backward()
    assert [n for n, p in mixer.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


@pytest.mark.parametrize("name", HEADED)
@torch.no_grad()
def test_heads_can_be_cut_and_shuffled(name: str) -> None:
    model, batch = tiny.network("late_fusion", "picture", mixer=name, depth=1, **SMALL), tiny.batch(2, "picture")
    (group,) = trace(model, "heads")
    kept = keep_units(model, {group: torch.tensor([1])})
    masked, shuffled = copy.deepcopy(model), copy.deepcopy(model)
    for cut in group.cuts:
        here, there = (cut.index(torch.tensor(units), 2).flatten() for units in ([0, 1], [1, 0]))
        tensor = shuffled.state_dict()[cut.name]
        tensor.index_copy_(cut.axis, here, tensor.index_select(cut.axis, there))
        if cut.axis == 1 and isinstance(masked.get_submodule(cut.name.rpartition(".")[0]), Dense):
            masked.state_dict()[cut.name][:, cut.index(torch.tensor([0]), 2).flatten()] = 0
    assert close(kept(batch), masked(batch))
    assert close(shuffled(batch), model(batch))
    assert not close(kept(batch), model(batch))


@pytest.mark.parametrize("name", HEADED)
def test_every_tensor_of_a_mixer_belongs_to_its_heads_or_its_width(name: str) -> None:
    model = tiny.network("late_fusion", "picture", mixer=name, depth=1, **SMALL)
    traced = {cut.name for group in trace(model) for cut in group.cuts}
    rest = {n.split("mixer.")[1] for n, _ in model.named_parameters() if "mixer" in n and n not in traced}
    assert rest == ({"fold_keys.weight", "fold_values.weight"} if name == "low_rank" else set())


@pytest.mark.parametrize("name", HEADED)
@torch.no_grad()
def test_mixers_work_on_the_integer_grid(name: str) -> None:
    model, batch = tiny.network("late_fusion", "words", mixer=name, depth=1, **SMALL), tiny.batch(4, "words")
    small = compress(model, [Int8()], [batch])
    mixer = small.encoders["words"].blocks.layers[0].mixer
    assert {m.precision for m in mixer.modules() if hasattr(m, "precision")} == {"int8"}
    assert torch.allclose(small(batch), model(batch), atol=0.1)


def test_sizes_reach_the_blocks() -> None:
    model = tiny.network("late_fusion", "words", mixer="state_space", **SMALL)
    block = model.config.encoders["words"].blocks[0]
    assert {name: getattr(block, name) for name in SMALL} == SMALL
    with pytest.raises(ModelError, match="factor of ProbSparse must be above zero"):
        BlockConfig(factor=0.0)


@torch.no_grad()
def test_what_follows_a_reduction_needs_no_grid_or_says_so() -> None:
    model = tiny.network("late_fusion", "words", mixer="window", depth=1)
    block = model.encoders["words"].blocks.layers[0]
    for name in NEW:
        config = BlockConfig(mixer=name, heads=2, head_dim=8, **SMALL)
        if name in {"low_rank", "prob_sparse"}:
            with pytest.raises(ModelError, match="known number of tokens"):
                Block(16, config, grid=(), precision="float32", dropout=0.0)
        else:
            made = Block(16, config, grid=(), precision="float32", dropout=0.0).eval()
            tokens = Tokens(torch.randn(2, 5, 16), None, torch.rand(2, 5) + 1)
            assert made(tokens).x.shape == block(tokens).x.shape


def encode_in_the_runtime(model: Multimodal, name: str) -> onnxruntime.InferenceSession:
    return session(_encode_graph(frozen(model), name))


def session(graph: bytes, *, as_written: bool = False) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    if as_written:  # the runtime's own integer products round differently
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("name", NEW)
@torch.no_grad()
def test_exported_mixers_answer_alike_for_any_batch_and_length(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "CHUNK", 4)
    model = tiny.network("late_fusion", "words", mixer=name, depth=1, **SMALL)
    runtime = encode_in_the_runtime(model, "words")
    for rows, length in ((4, 12), (1, 12), (3, 7), (2, 1)):
        words = tiny.batch(4, "words").inputs["words"][:rows, :length]
        x, mask = runtime.run(None, {"words": words.numpy()})
        tokens = model.encode("words", words)
        real = tokens.real()
        assert (mask == real.numpy()).all()
        assert np.allclose(x[real.numpy()], tokens.x[real].numpy(), atol=1e-4)


@pytest.mark.parametrize("name", ["pooling", "window"])
@torch.no_grad()
def test_exported_mixers_read_rows_and_columns(name: str) -> None:
    model, batch = tiny.network("late_fusion", "picture", mixer=name, depth=1, **SMALL), tiny.batch(1, "picture")
    (answer,) = session(export_fused(model)).run(None, {"picture": batch.inputs["picture"].numpy()})
    assert np.allclose(answer, model(batch).numpy(), atol=1e-4)


@torch.no_grad()
def test_integer_folds_export() -> None:
    model, batch = tiny.network("late_fusion", "words", mixer="low_rank", depth=1, **SMALL), tiny.batch(4, "words")
    small = rebuild(model, dataclasses.replace(model.config, precision="int8_weights"))
    runtime = session(export_fused(small), as_written=True)
    for row in range(4):
        words = batch.inputs["words"][row : row + 1]
        (answer,) = runtime.run(None, {"words": words.numpy()})
        assert np.allclose(answer, small(Batch({"words": words})).numpy(), atol=1e-4)
