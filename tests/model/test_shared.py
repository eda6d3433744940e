"""Parts that all modalities share: blocks of one set of weights, and latents that read everything."""

from __future__ import annotations

import copy
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from tests.model import tiny
from triptych.algorithm import Int8, PruneChannels, PruneHeads, PruneLayers, PruneWidth, Student, compress
from triptych.algorithm.weights.trace import KINDS, trace
from triptych.errors import ModelError, RecipeError
from triptych.model import ModelConfig, Multimodal, load_model, save_model
from triptych.model.config import BlockConfig
from triptych.model.encoder import Block
from triptych.system.bundle import graphs
from triptych.system.bundle.export import stage_facts
from triptych.tokens import Batch, Tokens

NAMES = ("motion", "words", "facts")
VARIANTS: list[dict[str, Any]] = [
    {"name": "unified", "exits": True},
    {"name": "unified", "channel_per": "modality"},
    {"name": "perceiver", "latents": 4, "exits": True},
]
BATCH = tiny.batch(3, *NAMES)


def network(number: int, names: tuple[str, ...], sizes: dict[str, Any]) -> Multimodal:
    options = {**VARIANTS[number], "dim": 12, **sizes}
    return tiny.network(options.pop("name"), *names, **options)


def over_late_fusion(**sizes: Any) -> Multimodal:
    """Shared blocks before a fusion that puts vectors side by side."""
    config = network(0, NAMES, sizes).config.to_dict()
    config["fusion"] = {"name": "late", "dim": 12}
    torch.manual_seed(1)
    return Multimodal(ModelConfig.from_dict(config), tiny.schema(*NAMES)).eval()


@torch.no_grad()
def test_modalities_run_through_the_very_same_blocks() -> None:
    model = network(0, NAMES, {})
    assert [len(encoder.blocks.layers) for encoder in model.encoders.values()] == [0, 0, 0]
    seen: list[str] = []
    for layer in model.shared.layers:
        layer.register_forward_hook(lambda _m, inputs, _o: seen.append(inputs[1]))
    model(BATCH)
    assert seen == [name for name in ("words", "motion", "facts") for _ in range(2)]
    before = {name: tokens.x for name, tokens in model.encode_all(BATCH).items()}
    model.shared.layers[0].mixer.out.bias += 1.0
    assert all(not torch.allclose(before[name], tokens.x) for name, tokens in model.encode_all(BATCH).items())


@torch.no_grad()
def test_a_channel_block_of_a_modality_is_read_by_it_alone() -> None:
    model = network(1, NAMES, {})
    before = {name: tokens.x for name, tokens in model.encode_all(BATCH).items()}
    model.shared.layers[0].channel["words"].down.bias += 1.0
    changed = [n for n, tokens in model.encode_all(BATCH).items() if not torch.equal(before[n], tokens.x)]
    assert changed == ["words"]


def test_shared_blocks_cost_no_parameters_per_modality() -> None:
    two, three = (network(0, names, {}).parameters_by_part()["shared"] for names in (NAMES[:2], NAMES))
    assert three - two == 12 * 12 + 2 * 12  # a projection and a mark
    two, three = (network(1, names, {}).parameters_by_part()["shared"] for names in (NAMES[:2], NAMES))
    assert three - two == 12 * 12 + 2 * 12 + 2 * (2 * 12 * 24 + 24 + 12)  # and two perceptrons


def test_parts_add_up_to_all_parameters_and_operations_are_counted_per_modality() -> None:
    model = network(0, NAMES, {})
    assert sum(model.parameters_by_part().values()) == sum(p.numel() for p in model.parameters())
    facts = stage_facts(model)
    parts = model.parameters_by_part()
    assert facts["words.encode"]["params"] == parts["words.encode"] + parts["shared"]
    exits = sum(count for name, count in parts.items() if name.endswith(".exit"))
    assert facts["fused"]["params"] == sum(parts.values()) - exits
    deeper = network(0, NAMES, {"depth": 4}).flops()
    assert all(deeper[f"{name}.encode"] > model.flops()[f"{name}.encode"] for name in NAMES)
    few, many = (network(2, NAMES, {"latents": count}).flops() for count in (2, 8))
    assert {name for name in few if many[name] > few[name]} == {"decide"}


@pytest.mark.parametrize("number", range(3))
@torch.no_grad()
def test_every_subset_answers_and_a_hidden_modality_equals_an_absent_one(number: int) -> None:
    model = network(number, NAMES, {})
    outputs = []
    for count in range(1, 4):
        for subset in itertools.combinations(NAMES, count):
            outputs.append(model(BATCH.only(*subset)))
            hidden = {n: torch.zeros(3, dtype=torch.bool) for n in NAMES if n not in subset}
            assert torch.allclose(model(Batch(BATCH.inputs, hidden)), outputs[-1], atol=1e-5)
    assert all((one - other).abs().max() > 1e-4 for one, other in itertools.combinations(outputs, 2))


def models() -> list[Multimodal]:
    return [*(network(number, NAMES, {}) for number in range(3)), over_late_fusion(exits=True)]


@pytest.mark.parametrize("number", range(4))
@torch.no_grad()
def test_units_can_be_shuffled_within_their_group(number: int) -> None:
    """A group that missed a place, or mistook its layout, would mix up units."""
    model = models()[number]
    expected = model(BATCH)
    for group in trace(model):
        shuffled = copy.deepcopy(model)
        order = torch.randperm(group.count, generator=torch.Generator().manual_seed(1))
        for cut in group.cuts:
            tensor = shuffled.state_dict()[cut.name]
            here, there = (cut.index(u, group.count).flatten() for u in (torch.arange(group.count), order))
            tensor.index_copy_(cut.axis, here, tensor.index_select(cut.axis, there))
        assert torch.allclose(shuffled(BATCH), expected, atol=1e-5), (group.path, group.owner)


@pytest.mark.parametrize("number", range(4))
def test_every_parameter_belongs_to_a_group_and_shared_ones_to_one_only(number: int) -> None:
    model = models()[number]
    cuts = [(cut.name, cut.axis, cut.start) for group in trace(model, *KINDS) for cut in group.cuts]
    assert len(cuts) == len(set(cuts))
    left = {name for name, _ in model.named_parameters()} - {name for name, _, _ in cuts}
    assert {name for name in left if not name.endswith("out.bias")} == set()


@pytest.mark.parametrize("technique", [PruneHeads(), PruneChannels(), PruneWidth(), PruneLayers()], ids=repr)
@pytest.mark.parametrize("number", range(4))
@torch.no_grad()
def test_pruning_makes_it_smaller_once(number: int, technique: Any, tmp_path: Path) -> None:
    model = models()[number]
    small = compress(model, [technique], [BATCH])
    assert small(BATCH).isfinite().all()
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in model.parameters())
    if small.config.shared and isinstance(technique, PruneLayers):
        assert len(small.config.shared.blocks) == 1
    loaded = load_model(save_model(small, tmp_path))
    assert torch.equal(loaded(BATCH), small(BATCH))


@pytest.mark.parametrize("number", [0, 1])
@torch.no_grad()
def test_a_shared_block_that_does_nothing_goes_first_and_is_not_missed(number: int) -> None:
    model = network(number, NAMES, {"fusion_depth": 1})
    for name, parameter in model.named_parameters():
        if name.startswith("shared.layers.0.") and (".out." in name or ".down." in name):
            parameter.zero_()
    small = compress(model, [PruneLayers(0.5)], [BATCH])
    assert len(small.config.shared.blocks) == 1
    assert torch.allclose(small(BATCH), model(BATCH), atol=1e-5)


def run(graph: bytes, feed: dict[str, Tensor]) -> np.ndarray[Any, Any]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    return session.run(None, {name: tensor.numpy() for name, tensor in feed.items()})[0]


@torch.no_grad()
def test_the_exported_encoders_equal_the_network_in_integers_too() -> None:
    model = network(1, NAMES, {"depth": 1, "fusion_depth": 1})
    for whole in (model, compress(model, [Int8()], [BATCH, BATCH.only("facts")])):
        streams = whole.encode_all(BATCH)
        frozen = graphs.frozen(whole)
        for name in ("words", "facts"):
            graph = graphs._encode_graph(frozen, name)
            assert np.allclose(run(graph, {name: BATCH.inputs[name]}), streams[name].x, atol=2e-3)


def test_a_student_may_mix_its_mixers_and_is_written_down_as_it_is() -> None:
    sizes = {"mixer": ("depthwise", "attention"), "dim": 8, "depth": 2, "head_hidden": 8, "hidden": 8}
    technique = Student("late_fusion", sizes=sizes)
    small = compress(network(0, NAMES, {"dim": 32}), [technique])
    assert [b.mixer for b in small.config.encoders["words"].blocks] == ["depthwise", "attention"]
    assert hash(technique) == hash(Student("late_fusion", sizes={**sizes, "mixer": ["depthwise", "attention"]}))


@pytest.mark.parametrize(
    ("mixer", "depth", "expected"),
    [
        ("window", 3, ["window"] * 3),
        (("depthwise", "attention"), 4, ["depthwise"] * 2 + ["attention"] * 2),
        (("depthwise", "attention"), 3, ["depthwise"] * 2 + ["attention"]),
        (("depthwise", "attention"), 0, []),
    ],
)
def test_mixers_are_spread_over_the_depth(mixer: Any, depth: int, expected: list[str]) -> None:
    model = tiny.network("late_fusion", "picture", mixer=mixer, depth=depth)
    assert [block.mixer for block in model.config.encoders["picture"].blocks] == expected


def test_what_cannot_be_shared_or_spread_is_refused_with_a_remedy() -> None:
    with pytest.raises(ModelError, match=r"spread over 1 blocks; give each mixer at least one"):
        tiny.network("late_fusion", "picture", mixer=("depthwise", "attention"), depth=1)
    with pytest.raises(ModelError, match="use 'block' elsewhere"):
        tiny.network("late_fusion", "picture", channel_per="modality")
    with pytest.raises(ModelError, match="channel_per must be one of"):
        BlockConfig(channel_per="layer")  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="known number of tokens"):
        tiny.network("unified", "picture", mixer="token_mixing")
    with pytest.raises(RecipeError, match=r"Student\.sizes"):
        Student("late_fusion", sizes={"mixer": (1, 2)})  # type: ignore[arg-type]


def operations(tokens: int, modalities: tuple[str, ...], **sizes: Any) -> int:
    """Operations of the latents of a network whose texts are all of one length."""
    model = network(2, modalities, {"depth": 1, **sizes})
    streams = {name: Tokens(torch.zeros(1, tokens, 12)) for name in modalities}
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model.fusion(streams)
    return counter.get_total_flops()


def test_latents_grow_linearly_with_tokens_modalities_and_their_own_number() -> None:
    pair = ("motion", "words")
    once, twice, four_times = (operations(n, pair) for n in (8, 16, 32))
    assert four_times - twice == 2 * (twice - once)
    assert operations(16, pair) == operations(32, ("motion",))
    attention = [operations(16, pair, latents=k) - operations(8, pair, latents=k) for k in (2, 4, 6)]
    # per token and layer, two products of two operations, 12 wide, for every latent; 16 tokens more in all, two layers
    assert attention[1] - attention[0] == 2 * 16 * 2 * 2 * 12 * 2 == attention[2] - attention[1]


@torch.no_grad()
def test_latents_stand_for_themselves_once_they_have_read() -> None:
    """With one layer the tokens are read once, as in Perceiver IO: what remains is work among latents."""
    model = network(2, NAMES, {"fusion_depth": 1, "depth": 3})
    layer = model.fusion.layers[0]
    assert len(layer.within) == 3
    assert all(isinstance(block, Block) for block in layer.within)
    widths = []
    layer.within[0].register_forward_hook(lambda _m, inputs, _o: widths.append(inputs[0].x.shape[1]))
    model(BATCH)
    assert widths == [4]
