"""Recipes: what they hold, how they are read, and what compress does with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.model import tiny
from triptych.algorithm import (
    TECHNIQUES,
    Context,
    Distill,
    Int8,
    KeepTokens,
    PruneChannels,
    PruneHeads,
    Student,
    compress,
    dump_recipe,
    load_recipe,
    make_technique,
)
from triptych.algorithm.rebuild import edited, rebuild
from triptych.data.loader import batches
from triptych.errors import ModelError, RecipeError

BATCH = tiny.batch(3)
RECIPES = [p for p in sorted((Path(__file__).parents[2] / "recipes").glob("*.toml")) if "[[step]]" in p.read_text()]


@pytest.mark.parametrize(
    "recipe",
    [
        [PruneChannels(0.25, importance="taylor"), Int8("percentile", percentile=99.5)],
        [KeepTokens(0.7, scorer="random", modalities=("sound", "picture")), Distill(epochs=3, lr=1e-5, alpha=1)],
        [Student("late_fusion", sizes={"dim": 32, "mixer": "depthwise"}, modalities={"text": {"depth": 1}})],
    ],
    ids=repr,
)
def test_what_is_written_is_read_back(recipe: Any, tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text(dump_recipe(recipe))
    assert load_recipe(tmp_path / "recipe.toml") == recipe


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_the_recipes_that_come_along_are_sound(path: Path) -> None:
    assert load_recipe(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no \\[\\[step\\]\\]"),
        ("step = 3", "no \\[\\[step\\]\\]"),
        ("[[step]", "cannot read"),
        ("seed = 1\n[[step]]\ntechnique = 'Int8'", "unknown keys \\['seed'\\]"),
        ("[[step]]\ntechnique = 'Magic'", "unknown technique 'Magic'; known are .*PruneHeads"),
        ("[[step]]\nfraction = 0.5", "unknown technique None"),
        ("[[step]]\ntechnique = ['Int8']", "unknown technique"),
        ("step = [1]", "holds no"),
        ("[[step]]\ntechnique = 'Int8'\nbits = 4", "unknown knobs \\['bits'\\] of Int8; known are .*clipping"),
        ("[[step]]\ntechnique = 'PruneHeads'\nfraction = 'half'", "fraction must be in .*'half'"),
        ("[[step]]\ntechnique = 'PruneHeads'\nfraction = 0.0", "fraction must be in"),
        ("[[step]]\ntechnique = 'PruneHeads'\nfraction = true", "fraction must be in"),
        ("[[step]]\ntechnique = 'KeepTokens'\nmodalities = ['a', 'a']", "different names"),
        ("[[step]]\ntechnique = 'Student'\nsizes = {dim = 8}", "name a network"),
    ],
)
def test_a_wrong_recipe_says_what_is_wrong(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text(text)
    with pytest.raises(RecipeError, match=message):
        load_recipe(tmp_path / "recipe.toml")


def test_a_missing_recipe_says_so(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="cannot read"):
        load_recipe(tmp_path / "none.toml")


def test_techniques_are_made_by_name() -> None:
    assert make_technique({"technique": "PruneHeads", "fraction": 0.25}) == PruneHeads(0.25)
    assert sorted(TECHNIQUES) == list(TECHNIQUES)


@torch.no_grad()
def test_an_empty_recipe_copies() -> None:
    model = tiny.network().train()
    same = compress(model, [])
    assert same is not model
    assert torch.equal(same(BATCH), model.eval()(BATCH))


def test_needs_are_checked_before_anything_is_done() -> None:
    with pytest.raises(RecipeError, match=r"Distill.*whole dataset"):
        compress(tiny.network(), [PruneHeads(), Distill()], [BATCH])
    with pytest.raises(RecipeError, match="list of techniques"):
        compress(tiny.network(), [PruneHeads], [BATCH])  # type: ignore[list-item]


def test_the_recipe_adds_up_over_several_calls() -> None:
    once = compress(tiny.network(), [PruneHeads()])
    twice = compress(once, [PruneChannels()])
    assert twice.config.recipe == (repr(PruneHeads()), repr(PruneChannels()))


def test_calibration_takes_batches_in_the_order_of_the_seed(tiny_data: Any) -> None:
    model = tiny.network("late_fusion", "facts")
    found = Context(model, [tiny.batch(2, seed=s) for s in range(5)]).calibration(3)
    assert len(found) == 3
    assert all(batch.inputs.keys() == {"facts"} for batch in found)
    from triptych.model import build

    of_data = build("late_fusion", tiny_data.schema, **tiny.SIZES)
    one, again, other = (Context(of_data, tiny_data, seed).calibration(2, batch_size=8) for seed in (3, 3, 4))
    wanted = next(iter(batches(tiny_data.train, tiny_data.schema, batch_size=8, seed=3)))
    assert torch.equal(one[0].rows, wanted.rows)
    assert torch.equal(one[1].rows, again[1].rows)
    assert not torch.equal(one[0].rows, other[0].rows)


def test_streams_of_random_numbers_differ_and_repeat() -> None:
    context = Context(tiny.network("late_fusion", "facts"), seed=1)
    one, again, other = (torch.rand(4, generator=context.generator(stream)) for stream in (0, 0, 1))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_surgery_edits_copies_and_checks_the_fit() -> None:
    model = tiny.network("late_fusion", "picture")
    config = edited(model.config, ("encoders", "picture", "blocks", 1, "heads"), 1)
    assert [b.heads for b in config.encoders["picture"].blocks] == [2, 1]
    assert [b.heads for b in model.config.encoders["picture"].blocks] == [2, 2]
    with pytest.raises(ModelError, match="another size"):
        rebuild(model, config)
    with pytest.raises(ModelError, match="only on one side"):
        rebuild(model, edited(model.config, ("exits",), value=True))


def test_surgery_leaves_the_global_random_state_alone() -> None:
    model = tiny.network("late_fusion", "picture")
    state = torch.get_rng_state()
    compress(model, [PruneHeads(importance="random"), Student()])
    assert torch.equal(torch.get_rng_state(), state)
