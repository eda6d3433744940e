"""What stands for a missing modality: by hand, alike however it is told, exported, pruned, and said by the bundle."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import json
from collections.abc import Mapping

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor

from tests.model import tiny
from triptych.algorithm import Int8Weights, PruneWidth, compress
from triptych.errors import ModelError
from triptych.model import ModelConfig, Multimodal, build
from triptych.model.missing import FILLS, BankFill, ZeroFill
from triptych.model.missing.bank import MOST
from triptych.schema import Modality, Schema
from triptych.system.bundle import graphs
from triptych.system.bundle.write import write_bundle
from triptych.system.runtime import Bundle
from triptych.tokens import Batch, Tokens

NAMES = ("words", "motion", "facts")
DIMS = {"a": 3, "b": 2}
BATCH = tiny.batch(4, *NAMES)
SUBSETS = [s for size in (1, 2, 3) for s in itertools.combinations(NAMES, size)]


def network(fill: str, name: str = "late_fusion", *names: str, **sizes: object) -> Multimodal:
    return tiny.network(name, *(names or NAMES), fill=fill, depth=0, dim=12, **sizes)


@pytest.fixture(params=sorted(FILLS))
def fill(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@torch.no_grad()
def test_zeros_stand_for_what_is_missing_and_real_tokens_stay() -> None:
    x = torch.arange(1.0, 13.0).reshape(2, 2, 3)
    mask = torch.tensor([[True, False], [False, False]])
    filled = ZeroFill(DIMS)({"a": Tokens(x, mask, torch.tensor([[2.0, 1.0], [5.0, 5.0]]))})
    assert filled["a"].x.tolist() == [[[1, 2, 3], [4, 5, 6]], [[0, 0, 0], [10, 11, 12]]]
    assert filled["a"].real().tolist() == [[True, False], [True, False]]
    assert filled["a"].weights().tolist() == [[2, 0], [1, 0]]
    assert filled["b"].x.tolist() == [[[0, 0]], [[0, 0]]]
    assert filled["b"].real().all()
    whole = {"a": Tokens(x), "b": Tokens(torch.ones(2, 1, 2))}
    assert all(filled is whole[name] for name, filled in ZeroFill(DIMS)(whole).items())


@torch.no_grad()
def test_the_bank_is_indexed_by_what_was_observed() -> None:
    bank = BankFill({"a": 1, "b": 1, "c": 1})
    for vectors in bank.vectors.values():
        vectors.copy_(torch.arange(8.0).unsqueeze(1))
    here, gone = Tokens(torch.full((2, 1, 1), 9.0)), torch.tensor([[True], [False]])
    filled = bank({"a": here, "c": Tokens(here.x, gone)})
    assert filled["b"].x.flatten().tolist() == [1 + 4, 1]  # a and c, then a alone
    assert filled["c"].x.flatten().tolist() == [9, 1]
    with pytest.raises(ModelError, match="at most 8 modalities; got 9: use fill='placeholder'"):
        BankFill({f"m{i}": 1 for i in range(MOST + 1)})


@torch.no_grad()
def test_a_network_with_everything_is_not_changed_by_its_fill(fill: str) -> None:
    plain, filled = network(""), network(fill)
    weights = {name: tensor for name, tensor in filled.state_dict().items() if not name.startswith("fill.")}
    plain.load_state_dict(weights)
    whole = {name: raw.nan_to_num() for name, raw in BATCH.inputs.items()}
    assert torch.equal(filled(Batch(whole)), plain(Batch(whole)))


@pytest.mark.parametrize("name", ["late_fusion", "gated_fusion", "cross_fusion"])
@torch.no_grad()
def test_a_row_that_lacks_a_modality_is_answered_as_a_batch_without_it(fill: str, name: str) -> None:
    model = network(fill, name, fusion_depth=1)
    for held in SUBSETS:
        present = {n: torch.tensor([True, n in held, True, n in held]) for n in NAMES}
        garbage = {n: raw.clone() for n, raw in BATCH.inputs.items()}
        mixed = model(dataclasses.replace(BATCH, inputs=garbage, present=present))
        assert torch.allclose(mixed[[1, 3]], model(BATCH.only(*held))[[1, 3]], atol=1e-5)
        assert torch.allclose(mixed[[0, 2]], model(BATCH)[[0, 2]], atol=1e-5)


def test_learnt_vectors_learn_from_the_rows_that_lack_the_modality_only() -> None:
    for fill, moved in (("placeholder", {"facts": {0}}), ("bank", {"facts": {1 + 2}})):
        model = network(fill)
        order = list(model.fill.dims)
        assert order == list(NAMES)
        model(BATCH.only("motion", "words")).sum().backward()
        for name, vectors in model.fill.vectors.items():
            used = (
                set()
                if vectors.grad is None
                else set(vectors.grad.reshape(-1, 12).abs().sum(1).nonzero().flatten().tolist())
            )
            assert used == moved.get(name, set())


@torch.no_grad()
def test_the_exported_decision_equals_the_network_on_every_subset() -> None:
    model = network("bank")
    given = model.encode_all(BATCH)
    graph = graphs._decide_graph(graphs._Decide(graphs.frozen(model)), given)
    for held in SUBSETS:
        feed = {f"{n}.x": t.x if n in held else t.x[:, :1] * 0 for n, t in given.items()}
        feed |= {f"{n}.mask": t.weights() if n in held else t.weights()[:, :1] * 0 for n, t in given.items()}
        assert np.allclose(run(graph, feed), model(BATCH.only(*held)), atol=1e-4)


def run(graph: bytes, feed: Mapping[str, Tensor]) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    return session.run(None, {name: tensor.numpy() for name, tensor in feed.items()})[0]


@torch.no_grad()
def test_a_filled_network_is_pruned_quantized_and_rebuilt(fill: str) -> None:
    model = network(fill)
    small = compress(model, [PruneWidth(0.5), Int8Weights()], [BATCH])
    assert small(BATCH.only("words")).isfinite().all()
    config = ModelConfig.from_dict(json.loads(json.dumps(model.config.to_dict())))
    again = Multimodal(config, model.schema).eval()
    again.load_state_dict(copy.deepcopy(model.state_dict()))
    assert torch.equal(again(BATCH.only("facts")), model(BATCH.only("facts")))
    counted = sum(model.parameters_by_part().values())
    assert counted == sum(p.numel() for p in model.parameters())


def test_an_unknown_fill_and_one_without_a_fusion_are_refused() -> None:
    with pytest.raises(ModelError, match=r"one of \['bank', 'placeholder', 'zero'\], got 'mean'"):
        network("mean")
    pair = Schema(
        "p", tiny.schema("motion", "words").modalities, "", "retrieval", "recall_at_1", pair=("motion", "words")
    )
    with pytest.raises(ModelError, match="stands before a fusion"):
        build("dual_encoder", pair, **{**tiny.SIZES, "fill": "zero"})


def table(name: str, *fields: str) -> Modality:
    zeros, ones = (0.0,) * len(fields), (1.0,) * len(fields)
    return Modality(name, "table", fields=fields, center=zeros, scale=ones)


@torch.no_grad()
def test_a_bundle_takes_every_subset_and_says_which_it_used(fill: str, tmp_path) -> None:
    parts = (table("left", "a", "b"), table("right", "c"), table("below", "d"))
    schema = Schema("s", parts, "y", "classification", "accuracy", classes=("no", "yes"))
    torch.manual_seed(0)
    model = build("late_fusion", schema, dim=8, depth=0, heads=2, head_hidden=4, hidden=4, fill=fill).eval()
    for parameter in model.parameters():
        parameter.add_(torch.randn_like(parameter) * 0.1)
    row = {"left": [1.0, -1.0], "right": [2.0], "below": [0.5]}
    raw = {name: torch.tensor([values]) for name, values in row.items()}
    rows = [dict(itertools.islice(raw.items(), count)) for count in (1, 2, 3)]
    folder = write_bundle(
        tmp_path / "bundle",
        schema=schema,
        graphs=graphs.export_graphs(model),
        golden_inputs=[{n: v.numpy() for n, v in one.items()} for one in rows],
        golden_outputs=[model(Batch(one))[0].numpy() for one in rows],
    )
    bundle = Bundle.load(folder)
    for size in (1, 2, 3):
        for held in itertools.combinations(row, size):
            answer = bundle.predict(**{name: row[name] for name in held})
            assert (answer.used, answer.missing) == (held, tuple(n for n in row if n not in held))
            expected = model(Batch({name: raw[name] for name in held})).softmax(dim=1)[0]
            assert list(answer.probabilities.values()) == pytest.approx(expected.tolist(), abs=1e-4)
