"""Adapters one by one: formulas, where they start, what they freeze, the disk, training, merging and export."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from tests.model import tiny
from triptych.algorithm import Int8, Int8Weights, PruneWidth, compress
from triptych.errors import ModelError
from triptych.model import AdapterConfig, ModelConfig, Multimodal, adapt, load_model, merge, save_model
from triptych.model.adapt import trainable_parameters
from triptych.model.adapters import ADAPTERS, Adapter, BlocksAdapter, ConditionalPrompt, LayerAdapter
from triptych.model.config import Precision
from triptych.model.dense import Dense
from triptych.system.bundle import graphs
from triptych.tokens import Batch

NAMES = tuple(sorted(ADAPTERS))
MERGING = tuple(name for name in NAMES if ADAPTERS[name].merges)
TRAINED = tuple(name for name in NAMES if name != "cache_model")
SILENT = ("bottleneck", "dora", "ladder", "lora")  # change nothing at the start
BATCH = tiny.batch(6)
PAIR = ("picture", "words")


def config(name: str, **fields: Any) -> AdapterConfig:
    return AdapterConfig(**{"name": name, "rank": 3, "prompts": 2, **fields})


def data(name: str) -> list[Batch] | None:
    return [BATCH] if name == "cache_model" else None


def adapted(name: str, *names: str, seed: int = 0, fields: Mapping[str, Any] | None = None, **sizes: Any) -> Multimodal:
    """A network with an adapter whose every number is random."""
    base = tiny.network("late_fusion", *names, **sizes)
    batches = [BATCH.only(*names)] if names and name == "cache_model" else data(name)
    model = adapt(base, config(name, **(fields or {})), batches)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in trainable_parameters(model).values():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
        for part in model.modules():
            if isinstance(part, ConditionalPrompt):
                part.narrow.bias.add_(1)  # no unit is at rest
    return model


@pytest.mark.parametrize("name", NAMES)
def test_it_trains_itself_and_what_is_asked_for_and_nothing_else(name: str) -> None:
    base = tiny.network()
    before = {n: t.clone() for n, t in base.state_dict().items()}
    model = adapt(base, config(name), data(name))
    trained = trainable_parameters(model)
    assert trained
    assert trained.keys() == model.state_dict().keys() - before.keys() - {"votes.values"}
    assert all(model.state_dict()[n].equal(t) for n, t in before.items())
    assert all(base.state_dict()[n].equal(t) for n, t in before.items())
    assert base.config.adapter is None
    assert all(p.requires_grad for p in base.parameters())
    heads = adapt(base, config(name, also=("head", "encoders.words.stem")), data(name))
    assert {n.partition(".")[0] for n in trainable_parameters(heads).keys() - trained.keys()} == {"head", "encoders"}
    assert sum(model.parameters_by_part().values()) == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("name", SILENT)
@torch.no_grad()
def test_it_starts_without_any_change(name: str) -> None:
    base = tiny.network("early_fusion")
    model = adapt(base, config(name))
    assert torch.allclose(model(BATCH), base(BATCH), atol=1e-5)
    with torch.no_grad():
        for parameter in trainable_parameters(model).values():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    assert (model(BATCH) - base(BATCH)).abs().max() > 1e-3


@pytest.mark.parametrize("name", NAMES)
def test_every_number_of_it_is_trained_and_the_rest_stays_bit_for_bit(name: str) -> None:
    model = adapted(name).train()
    before = {n: t.clone() for n, t in model.state_dict().items()}
    trained = trainable_parameters(model)
    optimizer = torch.optim.Adam(trained.values(), lr=0.02)
    losses = []
    for _ in range(12):
        loss = nn.functional.cross_entropy(model.eval()(BATCH), BATCH.target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] * 0.98
    after = model.state_dict()
    assert {n for n, t in before.items() if not after[n].equal(t)} == trained.keys()
    assert all(p.grad is None for n, p in model.named_parameters() if n not in trained)


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_it_survives_the_disk(name: str, tmp_path: Path) -> None:
    model = adapted(name, fields={"also": ("head",)})
    loaded = load_model(save_model(model, tmp_path))
    assert ModelConfig.from_dict(model.config.to_dict()) == loaded.config == model.config
    assert torch.equal(loaded(BATCH), model(BATCH))
    assert trainable_parameters(loaded).keys() == trainable_parameters(model).keys()


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_rows_padding_and_missing_modalities_stay_apart(name: str) -> None:
    model = adapted(name)
    whole = model(BATCH)
    for row in range(2):
        assert torch.allclose(
            model(Batch({n: r[row : row + 1] for n, r in BATCH.inputs.items()}))[0], whole[row], atol=1e-5
        )
    ids = BATCH.inputs["words"].clone()
    ids[:, 8:] = 0
    short, long = ({**BATCH.inputs, "words": i} for i in (ids[:, :8], ids))
    assert torch.allclose(model(Batch(short)), model(Batch(long)), atol=1e-5)
    present = torch.tensor([True, False] * 3)
    mixed = model(Batch(BATCH.inputs, {"picture": present}))
    without = model(BATCH.only(*(n for n in tiny.NAMES if n != "picture")))
    assert torch.allclose(mixed[~present], without[~present], atol=1e-5)
    assert torch.allclose(mixed[present], whole[present], atol=1e-5)


@pytest.mark.parametrize("precision", ["float32", "int8_weights", "int8"])
@pytest.mark.parametrize("name", MERGING)
@torch.no_grad()
def test_merging_keeps_the_function_and_adds_nothing(name: str, precision: Precision) -> None:
    model = adapted(name, *PAIR)
    batch = BATCH.only(*PAIR)
    if precision != "float32":
        model = compress(model, [Int8() if precision == "int8" else Int8Weights()], [batch])
    plain = merge(model)
    assert torch.allclose(plain(batch), model(batch), atol=1e-5)
    assert plain.config == dataclasses.replace(model.config, adapter=None)
    assert plain.state_dict().keys() == {n for n in model.state_dict() if ".adapter." not in n}
    assert all(p.requires_grad for p in plain.parameters())
    assert (plain(batch) - tiny.network("late_fusion", *PAIR)(batch)).abs().max() > 1e-3


@pytest.mark.parametrize("name", sorted(set(NAMES) - set(MERGING)))
def test_what_cannot_be_merged_says_so(name: str) -> None:
    with pytest.raises(ModelError, match=f"'{name}', which is no change of weights"):
        merge(adapt(tiny.network(), config(name), data(name)))


def layer(name: str) -> tuple[Dense, Any]:
    """A layer of 5 inputs and 4 outputs with a random adapter of rank 2."""
    torch.manual_seed(0)
    dense = Dense(5, 4)
    nn.init.normal_(dense.bias)
    cls: Any = ADAPTERS[name]
    dense.adapter = cls(5, 4, AdapterConfig(name, rank=2, alpha=3.0), "float32")
    with torch.no_grad():
        for parameter in dense.adapter.parameters():
            parameter.add_(torch.randn_like(parameter))
    return dense, dense.adapter


@torch.no_grad()
def test_lora_by_its_formula() -> None:
    dense, adapter = layer("lora")
    x = torch.randn(3, 5)
    expected = x @ (dense.weight + adapter.up @ adapter.down * 3 / 2).T + dense.bias
    assert torch.allclose(dense(x), expected, atol=1e-6)
    assert torch.allclose(nn.functional.linear(x, dense.matrix(), dense.bias), expected, atol=1e-6)


@torch.no_grad()
def test_dora_has_the_lengths_that_it_learns_and_the_directions_of_lora() -> None:
    dense, adapter = layer("dora")
    changed = dense.weight + adapter.up @ adapter.down * 3 / 2
    rows = [adapter.magnitude[i] * changed[i] / math.sqrt(sum(v * v for v in changed[i].tolist())) for i in range(4)]
    x = torch.randn(3, 5)
    assert torch.allclose(dense.matrix(), torch.stack(rows), atol=1e-6)
    assert torch.allclose(dense(x), x @ torch.stack(rows).T + dense.bias, atol=1e-5)
    assert torch.allclose(dense.matrix().norm(dim=1), adapter.magnitude.abs(), atol=1e-6)


@torch.no_grad()
def test_dora_starts_at_the_lengths_of_the_weights() -> None:
    base = tiny.network("late_fusion", "words")
    model = adapt(base, config("dora"))
    for name, parameter in trainable_parameters(model).items():
        if name.endswith(".magnitude"):
            weight = base.get_submodule(name.removesuffix(".adapter.magnitude")).weight
            assert torch.allclose(parameter, weight.square().sum(dim=1).sqrt())


@pytest.mark.parametrize("name", ["lora", "dora"])
@pytest.mark.filterwarnings("ignore")
def test_it_equals_peft_on_the_same_weights(name: str) -> None:
    peft = pytest.importorskip("peft")
    dense, adapter = layer(name)
    plain = nn.Sequential(nn.Linear(5, 4))
    with torch.no_grad():
        plain[0].weight.copy_(dense.weight)
        plain[0].bias.copy_(dense.bias)
    options = peft.LoraConfig(r=2, lora_alpha=3, target_modules=["0"], use_dora=name == "dora")
    other = peft.get_peft_model(plain, options)
    theirs = other.base_model.model[0]
    with torch.no_grad():
        theirs.lora_A["default"].weight.copy_(adapter.down)
        theirs.lora_B["default"].weight.copy_(adapter.up)
        if name == "dora":
            theirs.lora_magnitude_vector["default"].weight.copy_(adapter.magnitude)
    x = torch.randn(3, 5)
    ours, expected = dense(x), other(x)
    assert torch.allclose(ours, expected, atol=1e-5)
    ours.square().sum().backward()
    expected.square().sum().backward()
    assert torch.allclose(adapter.up.grad, theirs.lora_B["default"].weight.grad, atol=1e-4)
    assert torch.allclose(adapter.down.grad, theirs.lora_A["default"].weight.grad, atol=1e-4)


@torch.no_grad()
def test_a_bottleneck_by_its_formula() -> None:
    dense, adapter = layer("bottleneck")
    x = torch.randn(3, 5)
    plain = x @ dense.weight.T + dense.bias
    inner = nn.functional.gelu(plain @ adapter.narrow.weight.T + adapter.narrow.bias)
    assert torch.allclose(dense(x), plain + inner @ adapter.widen.weight.T + adapter.widen.bias, atol=1e-6)


def test_targets_choose_layers_by_parts_of_their_names() -> None:
    base = tiny.network("early_fusion")

    def found(*targets: str) -> set[str]:
        model = adapt(base, config("lora", targets=targets))
        return {n.rpartition(".adapter.")[0] for n in trainable_parameters(model)}

    usual = found()
    assert not any(name.startswith("head") for name in usual)
    assert found("query_key_value") == {n for n in usual if n.endswith("query_key_value")}
    assert found("encoders.words.blocks") == {n for n in usual if n.startswith("encoders.words.blocks.")}
    assert found("head.up", "encoders.picture.stem") == {"head.up", "encoders.picture.stem.project"}


def test_a_ladder_lets_no_gradient_into_the_backbone() -> None:
    """Even if its parts are asked to be trained."""
    model = adapt(tiny.network("late_fusion", "words"), config("ladder", also=("encoders.words",))).train()
    with torch.no_grad():
        model.encoders["words"].around.exit.weight.add_(0.1)
    model(BATCH.only("words")).square().sum().backward()
    reached = {n for n, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert {n for n in reached if n.startswith("encoders")} == {
        n for n, _ in model.named_parameters() if n.startswith("encoders.words.around")
    }


def test_a_ladder_keeps_fewer_activations_than_lora_does() -> None:
    """Counted in numbers that the backward pass holds, parameters left out."""
    base = tiny.network("late_fusion", "picture", dim=64, depth=4, expansion=4.0)

    def held(name: str) -> int:
        model = adapt(base, config(name, also=("head",))).train()
        weights = {p.untyped_storage().data_ptr() for p in model.state_dict().values()}
        seen: dict[int, int] = {}

        def pack(tensor: Tensor) -> Tensor:
            if tensor.untyped_storage().data_ptr() not in weights:
                seen[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = model(BATCH.only("picture")).sum()
        loss.backward()
        return sum(seen.values())

    assert held("ladder") < held("lora") / 2


@torch.no_grad()
def test_prompts_are_tokens_before_the_others_and_leave_none_behind() -> None:
    model = adapted("prompt", "picture")
    encoder = model.encoders["picture"]
    tokens = encoder.stem(BATCH.inputs["picture"])
    prompts = encoder.around.prompts.expand(6, -1, -1)
    expected = encoder.blocks(tokens.with_x(torch.cat([prompts, tokens.x], dim=1))).x[:, 2:]
    assert torch.allclose(encoder(BATCH.inputs["picture"]).x, expected, atol=1e-6)


@torch.no_grad()
def test_deep_prompts_are_anew_in_every_block() -> None:
    model = adapted("deep_prompt", "picture")
    encoder = model.encoders["picture"]
    tokens = encoder.stem(BATCH.inputs["picture"])
    for number, block in enumerate(encoder.blocks.layers):
        prompts = encoder.around.prompts[number].expand(6, -1, -1)
        tokens = tokens.with_x(block(tokens.with_x(torch.cat([prompts, tokens.x], dim=1))).x[:, 2:])
    assert torch.allclose(encoder(BATCH.inputs["picture"]).x, encoder.blocks.norm(tokens.x), atol=1e-6)


@torch.no_grad()
def test_conditional_prompts_are_shifted_by_the_example() -> None:
    model = adapted("conditional_prompt", "words")
    encoder = model.encoders["words"]
    around, tokens = encoder.around, encoder.stem(BATCH.inputs["words"])
    shift = around.widen(around.narrow(tokens.mean()).clamp(min=0))
    assert (shift[0] - shift[1]).abs().max() > 1e-4
    row = encoder.stem(BATCH.inputs["words"][:1])
    real = int(row.real().sum())
    alone = torch.cat([around.prompts + shift[0], row.x[0, :real]])
    expected = encoder.blocks(type(row)(alone.unsqueeze(0))).x[:, 2:]
    assert torch.allclose(encoder(BATCH.inputs["words"][:1]).x[:, :real], expected, atol=1e-5)


@torch.no_grad()
def test_the_cache_equals_a_naive_loop() -> None:
    base = tiny.network("late_fusion", *PAIR)
    known = tiny.batch(5, *PAIR, seed=3)
    known = dataclasses.replace(known, target=torch.tensor([0, 2, -1, 1, 2]))
    options = config("cache_model", blend=0.7, sharpness=2.5)
    model = adapt(base, options, [known, dataclasses.replace(known, target=None)])
    assert model.config.adapter == dataclasses.replace(options, entries=4)
    batch = BATCH.only(*PAIR)
    new, old = (base.fusion(base.encode_all(b)) for b in (batch, known))
    expected = base(batch).clone()
    for row in range(6):
        for entry, label in enumerate(known.target.tolist()):
            if label >= 0:
                cosine = float(new[row] @ old[entry] / new[row].norm() / old[entry].norm())
                expected[row, label] += 0.7 * math.exp(-2.5 * (1 - cosine))
    assert torch.allclose(model(batch), expected, atol=1e-5)


@torch.no_grad()
def test_the_cache_brings_its_own_examples_nearer_to_their_labels() -> None:
    base = tiny.network()
    model = adapt(base, config("cache_model", sharpness=50.0, blend=5.0), [BATCH])
    right = torch.arange(6), BATCH.target
    assert (model(BATCH).softmax(-1)[right] > base(BATCH).softmax(-1)[right]).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: adapt(tiny.network(), AdapterConfig("glue")), r"unknown adapter 'glue'; known are .*lora"),
        (lambda: adapt(adapt(tiny.network(), AdapterConfig()), AdapterConfig()), "merge it first"),
        (lambda: adapt(tiny.network(), AdapterConfig(targets=("brain",))), r"\['brain'\].*query_key_value"),
        (lambda: adapt(tiny.network(), AdapterConfig(also=("tail",))), r"no parts \['tail'\].*'head'"),
        (lambda: adapt(tiny.network(), AdapterConfig(), [BATCH]), "takes no data"),
        (lambda: adapt(tiny.network(), AdapterConfig("cache_model")), "pass batches with targets"),
        (lambda: adapt(tiny.network(task="regression"), AdapterConfig("cache_model"), [BATCH]), "votes on classes"),
        (lambda: adapt(tiny.network(), AdapterConfig("prompt", targets=("smell",))), r"no modalities \['smell'\]"),
        (lambda: adapt(tiny.network(), AdapterConfig("prompt", targets=("facts",))), "no blocks"),
        (lambda: adapt(tiny.network(depth=0), AdapterConfig("ladder")), "no encoder has blocks"),
        (lambda: adapt(tiny.network(mixer="window"), AdapterConfig("prompt")), r"\(window\) know the places"),
        (lambda: AdapterConfig(rank=0), "rank of an adapter must be at least 1"),
        (lambda: AdapterConfig(targets=["up"]), "tuple of names"),  # type: ignore[arg-type]
        (lambda: merge(tiny.network()), "no adapter"),
        (lambda: compress(adapt(tiny.network(), AdapterConfig()), [PruneWidth()]), "merge it, or prune before"),
    ],
)
def test_what_cannot_be_adapted_is_refused(call: Any, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        call()


@pytest.mark.parametrize("technique", [Int8Weights(), Int8()], ids=repr)
@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_integers_stay_close(name: str, technique: Any) -> None:
    model, batch = adapted(name, *PAIR), BATCH.only(*PAIR)
    small = compress(model, [technique], [batch])
    assert (small(batch) - model(batch)).abs().max() < 0.1 * model(batch).abs().max()
    assert torch.allclose(graphs.frozen(small)(batch), small(batch), atol=1e-4)


def run(graph: bytes, feed: Mapping[str, Tensor]) -> np.ndarray[Any, Any]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    return session.run(None, {name: tensor.numpy() for name, tensor in feed.items()})[0]


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_the_exported_network_equals_it(name: str) -> None:
    model, batch = adapted(name, *PAIR, depth=1), BATCH.only(*PAIR)
    graph = graphs.export_fused(model)
    for row in range(2):
        alone = {n: raw[row : row + 1] for n, raw in batch.inputs.items()}
        assert np.allclose(run(graph, alone), model(Batch(alone)), atol=1e-4)
    shorter = {"picture": batch.inputs["picture"][:1], "words": batch.inputs["words"][:1, :5]}
    assert np.allclose(run(graph, shorter), model(Batch(shorter)), atol=1e-4)
    if name in MERGING:
        assert len(graph) == len(graphs.export_fused(tiny.network("late_fusion", *PAIR, depth=1)))


@pytest.mark.parametrize("name", NAMES)
def test_it_is_filed_under_a_kind(name: str) -> None:
    assert issubclass(ADAPTERS[name], Adapter)
    assert name == "cache_model" or issubclass(ADAPTERS[name], LayerAdapter | BlocksAdapter)
