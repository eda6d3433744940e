"""Fewer tokens between blocks: where they go, how many stay, and that the runtime agrees."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from tests.model import tiny
from triptych.algorithm import KeepTokens, MergeTokens, compress
from triptych.errors import RecipeError
from triptych.model.mixers import MIXERS
from triptych.select import METHODS
from triptych.system.bundle.graphs import export_fused

BATCH = tiny.batch(3)
EVERY = [
    *(KeepTokens(scorer=s) for s in ("class_attention", "max_min_diversity", "random", "stride")),
    *(MergeTokens(method=m) for m in ("bipartite", "pool")),
]


def counts(model: Any) -> dict[str, int]:
    return counts_of(model, *BATCH.inputs)


def counts_of(model: Any, *names: str) -> dict[str, int]:
    return {name: tokens.x.shape[1] for name, tokens in model.encode_all(BATCH.only(*names)).items()}


def test_every_selection_method_belongs_to_a_technique() -> None:
    names = {t.scorer if isinstance(t, KeepTokens) else t.method for t in EVERY}
    assert names == set(METHODS)


@pytest.mark.parametrize("technique", EVERY, ids=repr)
@torch.no_grad()
def test_half_of_the_tokens_stay_but_for_texts_and_tables(technique: Any) -> None:
    model = tiny.network()
    before, after = counts(model), counts(compress(model, [technique]))
    assert after == {name: count if name in {"words", "facts"} else -(-count // 2) for name, count in before.items()}


@pytest.mark.parametrize("technique", [KeepTokens(1.0), MergeTokens(1.0), MergeTokens(1.0, method="pool")], ids=repr)
@torch.no_grad()
def test_keeping_everything_changes_nothing(technique: Any) -> None:
    model = tiny.network("early_fusion")
    assert torch.equal(compress(model, [technique])(BATCH), model(BATCH))


@pytest.mark.parametrize("technique", EVERY, ids=repr)
@torch.no_grad()
def test_rows_do_not_depend_on_their_batch(technique: Any) -> None:
    small = compress(tiny.network("bottleneck_fusion"), [technique])
    whole = small(BATCH)
    for row in range(3):
        alone = type(BATCH)({name: raw[row : row + 1] for name, raw in BATCH.inputs.items()})
        assert torch.allclose(small(alone)[0], whole[row], atol=1e-5)


@pytest.mark.parametrize("technique", EVERY, ids=repr)
@torch.no_grad()
def test_the_runtime_keeps_the_same_tokens(technique: Any) -> None:
    small = compress(tiny.network("late_fusion", "picture", "motion"), [technique])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(export_fused(small), options, providers=["CPUExecutionProvider"])
    for seed in range(4):
        batch = tiny.batch(1, "picture", "motion", seed=seed)
        output = session.run(None, {name: raw.numpy() for name, raw in batch.inputs.items()})[0]
        np.testing.assert_allclose(output, small(batch).numpy(), atol=1e-5)


def test_two_reductions_go_after_different_blocks() -> None:
    model = tiny.network("late_fusion", "motion", depth=3)
    small = compress(model, [KeepTokens(), MergeTokens(after=1)])
    assert [b.reduce.method if b.reduce else None for b in small.config.encoders["motion"].blocks] == [
        "class_attention",
        "bipartite",
        None,
    ]
    with pytest.raises(RecipeError, match="already reduced after block 0"):
        compress(small, [KeepTokens()])


@pytest.mark.parametrize(
    ("network", "technique", "text"),
    [
        (("late_fusion",), KeepTokens(modalities=("words",)), "words is text"),
        (("late_fusion", "words"), KeepTokens(), "words is text"),
        (("late_fusion",), KeepTokens(modalities=("facts",)), "facts has 0 blocks"),
        (("late_fusion",), KeepTokens(modalities=("sound", "smell")), "smell"),
        (("late_fusion",), KeepTokens(after=1), "after which nothing gets cheaper"),
        (("early_fusion",), MergeTokens(after=2), "has 2 blocks, so there is none with index 2"),
    ],
)
def test_what_cannot_be_reduced_is_refused_with_the_reason(network: Any, technique: Any, text: str) -> None:
    with pytest.raises(RecipeError, match=text):
        compress(tiny.network(*network), [technique])


@pytest.mark.parametrize("mixer", [name for name, mixer in MIXERS.items() if mixer.needs_grid])
def test_pictures_keep_the_grid_that_their_mixer_needs(mixer: str) -> None:
    model = tiny.network("late_fusion", mixer=mixer, kernel=3)
    small = compress(model, [KeepTokens()])
    assert counts(small)["picture"] == counts(model)["picture"]
    assert counts(small)["sound"] < counts(model)["sound"]
    with pytest.raises(RecipeError, match="whole grid"):
        compress(model, [KeepTokens(modalities=("picture",))])


@pytest.mark.parametrize("mixer", [name for name, mixer in MIXERS.items() if mixer.needs_count])
def test_mixers_that_count_tokens_refuse_a_reduction_before_them(mixer: str) -> None:
    model = tiny.network("early_fusion", "motion", "picture", mixer=mixer)
    with pytest.raises(RecipeError, match=f"known number of tokens in {mixer} after block 0"):
        compress(model, [KeepTokens()])
    assert counts_of(compress(model, [KeepTokens(after=1)]), "motion", "picture") == {"motion": 5, "picture": 8}


@pytest.mark.parametrize("mixer", sorted(MIXERS))
def test_every_mixer_tells_what_it_needs_of_the_tokens_places(mixer: str) -> None:
    """A reduction before any mixer is either refused as a recipe, or the network that it makes can be built and run."""
    model = tiny.network("early_fusion", "motion", mixer=mixer, kernel=3)
    try:
        small = compress(model, [KeepTokens()])
    except RecipeError:
        assert MIXERS[mixer].needs_count
    else:
        assert counts_of(small, "motion") == {"motion": 5}


def test_merging_more_than_pairs_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"at least 0\.5"):
        MergeTokens(0.4)
    assert MergeTokens(0.4, method="pool").fraction == 0.4
