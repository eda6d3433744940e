"""Every technique on a dual encoder: it keeps its promises and two unit vectors come out, or it says why not."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from tests.algorithm.checks import broken_promises
from tests.train.small import SIZES
from triptych.algorithm import TECHNIQUES, AdaptTokens, Distill, PruneChannels, Student, compress
from triptych.data.loader import batch_of
from triptych.errors import RecipeError
from triptych.model import build
from triptych.train import TrainConfig

TRAIN = TrainConfig(epochs=1, batch_size=24, precision="float32")


def network(data: Any, **sizes: Any) -> Any:
    torch.manual_seed(0)
    return build("dual_encoder", data.schema, **{**SIZES, "depth": 2, "embedding": 12, **sizes})


@pytest.mark.parametrize("name", sorted(TECHNIQUES.keys() - {"AdaptTokens"}))
def test_every_technique_runs_and_keeps_its_promises(name: str, tiny_pairs_data: Any) -> None:
    original, technique = network(tiny_pairs_data), TECHNIQUES[name]()
    untouched = copy.deepcopy(original.state_dict())
    result = compress(original, [technique], tiny_pairs_data, train=TRAIN)
    assert broken_promises(technique, original, result) == []
    assert all(torch.equal(tensor, untouched[key]) for key, tensor in original.state_dict().items())
    with torch.no_grad():
        sides = result(batch_of(tiny_pairs_data.validation, range(5))).unflatten(1, (2, -1))
    torch.testing.assert_close(sides.norm(dim=-1), torch.ones(5, 2))


def test_a_gate_where_nothing_is_fused_is_a_wrong_recipe(tiny_pairs_data: Any) -> None:
    with pytest.raises(RecipeError, match="a gate stands before a fusion"):
        compress(network(tiny_pairs_data), [AdaptTokens()], tiny_pairs_data, train=TRAIN)


@pytest.mark.parametrize("importance", ["activation", "taylor"])
def test_pruning_may_look_at_data(importance: Any, tiny_pairs_data: Any) -> None:
    lean = compress(network(tiny_pairs_data), [PruneChannels(0.5, importance)], tiny_pairs_data)
    assert lean.config.head_hidden < SIZES["head_hidden"]


def test_a_student_of_another_task_is_a_wrong_recipe(tiny_pairs_data: Any) -> None:
    with pytest.raises(RecipeError, match="no student for retrieval"):
        compress(network(tiny_pairs_data), [Student("late_fusion", sizes=(("dim", 8),))], tiny_pairs_data)


def test_a_narrower_student_is_taught_from_answers_given_once(tiny_pairs_data: Any) -> None:
    sizes = (("dim", 8), ("depth", 1), ("heads", 2), ("patch", 4), ("head_hidden", 8), ("embedding", 6))
    recipe = [Student("dual_encoder", sizes=sizes), Distill(alpha=0.7, ask="once")]
    lean = compress(network(tiny_pairs_data), recipe, tiny_pairs_data, train=TRAIN)
    assert lean.outputs == 12
    assert len(lean.config.recipe) == 2
