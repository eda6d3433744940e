import json
import math

import pytest

from triptych.errors import RecipeError
from triptych.train import TrainConfig
from triptych.train.schedule import decays, rate, step_seed


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", 0),
        ("lr", 0.0),
        ("lr", math.inf),
        ("warmup", 1.0),
        ("weight_decay", -0.1),
        ("average", 1.0),
        ("patience", 0),
        ("precision", "float16"),
        ("modality_dropout_unit", "both"),
        ("max_seconds", 0.0),
        ("clip", -1.0),
        ("workers", -1),
        ("freeze", "encoders.text"),
        ("freeze", ("",)),
    ],
)
def test_a_wrong_option_is_named(name: str, value: object) -> None:
    with pytest.raises(RecipeError, match=f"TrainConfig.{name} must"):
        TrainConfig(**{name: value})


def test_options_survive_a_round_trip_and_unknown_ones_are_refused() -> None:
    config = TrainConfig(epochs=3, patience=None, freeze=("encoders.text.stem", "head"))
    assert TrainConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    with pytest.raises(RecipeError, match=r"unknown training options \['epoch'\]"):
        TrainConfig.from_dict({"epoch": 3})


def test_the_rate_rises_then_falls_along_a_cosine() -> None:
    assert rate(0.05, warmup=0.1, final=0.0) == pytest.approx(0.5)
    assert rate(0.1, warmup=0.1, final=0.0) == pytest.approx(1.0)
    assert rate(0.55, warmup=0.1, final=0.2) == pytest.approx(0.6)  # half way: mean of 1 and 0.2
    assert rate(1.0, warmup=0.1, final=0.2) == pytest.approx(0.2)
    assert rate(0.5, warmup=0.0, final=0.0) == pytest.approx(0.5)
    falling = [rate(p / 20, warmup=0.1, final=0.01) for p in range(2, 21)]
    assert falling == sorted(falling, reverse=True)


def test_seeds_of_steps_differ_and_fit_a_generator() -> None:
    seeds = {step_seed(seed, step, 0, part) for seed in range(20) for step in range(50) for part in range(2)}
    assert len(seeds) == 20 * 50 * 2
    assert all(0 <= s < 2**63 for s in seeds)
    assert step_seed(0, 1) != step_seed(1, 0)


def test_decay_spares_norms_biases_embeddings_and_positions(tiny_data) -> None:
    from .small import network

    model = network(tiny_data)
    decayed = decays(model)
    shapes = dict(model.named_parameters())
    assert "head.out.weight" in decayed
    assert all(shapes[name].ndim >= 2 for name in decayed)
    assert not any("position" in name or "bias" in name or "norm" in name for name in decayed)
    from triptych.model.dense import Embedding

    tables = [name for name, module in model.named_modules() if isinstance(module, Embedding)]
    assert tables
    assert not any(f"{name}.weight" in decayed for name in tables)
