"""The chain's own choices for retrieval: its reference, its students, and no half pairs."""

from pathlib import Path
from typing import Any

import pytest
from optuna.trial import FixedTrial

from triptych.algorithm import compress
from triptych.model import build
from triptych.search.budget import Budget
from triptych.search.chain import fit_to_budget
from triptych.search.recipes import reference_recipe
from triptych.search.space import STARTS, default_space
from triptych.system.runtime import Bundle
from triptych.train import TrainConfig
from triptych.train.losses import task_loss


def test_the_reference_is_a_dual_encoder_that_its_options_can_train(tiny_pairs_data: Any) -> None:
    sizes, options = reference_recipe("fashion", "retrieval")
    assert sizes.pop("network") == "dual_encoder"
    model = build("dual_encoder", tiny_pairs_data.schema, **sizes)
    assert model.outputs == 2 * sizes["embedding"]
    task_loss(TrainConfig.from_dict(options), tiny_pairs_data.schema, tiny_pairs_data.train.targets)
    assert reference_recipe("fashion")[0]["network"] == "late_fusion"


@pytest.mark.parametrize("route", sorted(STARTS))
def test_every_start_of_a_search_can_be_built(route: str, tiny_pairs_data: Any) -> None:
    sizes, _ = reference_recipe("", "retrieval")
    sizes |= {"dim": 32, "head_hidden": 32}
    reference = build(sizes.pop("network"), tiny_pairs_data.schema, **sizes)
    start = dict(STARTS[route][-1])
    recipe = default_space(FixedTrial(start), tiny_pairs_data.schema)
    lean = compress(reference, recipe, tiny_pairs_data)
    assert lean.schema.task == "retrieval"
    assert sum(p.numel() for p in lean.parameters()) < sum(p.numel() for p in reference.parameters())


@pytest.mark.slow
def test_fit_leaves_a_bundle_that_embeds_and_a_report_of_what_is_found(tiny_pairs_data: Any, tmp_path: Path) -> None:
    budget, train = Budget.parse("size=60%,drop=100"), {"epochs": 2, "batch_size": 16}
    recipe = tmp_path / "recipe.toml"
    recipe.write_text("[build]\ndim = 64\ndepth = 1\n")
    line = fit_to_budget(tiny_pairs_data, budget, tmp_path, minutes=0.5, train=train, repeat=20, recipe=recipe)
    assert line["metric"] == "recall_at_1"
    assert 0 <= line["details"]["photo_to_title_recall_at_10"] <= 1
    assert line["size_bytes"] < 0.6 * line["size_bytes_reference"]
    bundle = Bundle.load(tmp_path / "bundle", check_golden=True)
    assert bundle.embed(title="red bar left").shape == (128,)
    assert "What a search finds" in (tmp_path / "report.html").read_text()
    assert "photo to title recall at 1" in (tmp_path / "bundle" / "MODEL_CARD.md").read_text()
