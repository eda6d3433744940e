"""What is frozen stays as it is, bit for bit, and a frozen run survives being stopped."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from triptych.errors import RecipeError
from triptych.train import fit
from triptych.train.freeze import freeze_
from triptych.train.progress import TrainProgress

from .small import config, network, same

PART = "encoders.image.stem"


def moved(before: nn.Module, after: nn.Module) -> set[str]:
    """Names of the parameters that differ."""
    old = dict(before.named_parameters())
    return {name for name, p in after.named_parameters() if not p.equal(old[name])}


def test_only_what_is_not_frozen_learns(tiny_data) -> None:
    model = network(tiny_data)
    after = fit(model, tiny_data, config(epochs=1, weight_decay=0.5, average=0.5, freeze=(PART, "head.up")))
    changed = moved(model, after)
    assert not any(name.startswith((f"{PART}.", "head.up")) for name in changed)
    assert {"head.out.weight", "encoders.image.blocks.norm.weight"} <= changed
    assert all(p.requires_grad for p in after.parameters())
    assert all(p.requires_grad for p in model.parameters())


def test_frozen_modules_stay_in_evaluation_mode(tiny_data) -> None:
    modes: list[bool] = []

    def watch(event: TrainProgress) -> None:
        modes.extend([live[0].encoders["image"].blocks.training, live[0].encoders["audio"].training])

    live: list[nn.Module] = []
    fit(
        network(tiny_data),
        tiny_data,
        config(epochs=2, freeze=("encoders.image",)),
        progress=watch,
        after_step=lambda model, _: live.append(model),
    )
    assert modes[::2] == [False] * (len(modes) // 2)
    assert modes[1::2] == [True] * (len(modes) // 2)


def test_a_frozen_run_resumes_to_the_same_weights(tiny_data, tmp_path: Path) -> None:
    options = config(epochs=2, average=0.9, freeze=(PART,), checkpoint_every_s=0.0)

    def stop(event: TrainProgress) -> None:
        if event.step == 3:
            raise InterruptedError

    whole = fit(network(tiny_data), tiny_data, options)
    with pytest.raises(InterruptedError):
        fit(network(tiny_data), tiny_data, options, folder=tmp_path, progress=stop)
    assert same(whole, fit(network(tiny_data), tiny_data, options, folder=tmp_path, resume=True))


@pytest.mark.parametrize(
    ("prefixes", "message"),
    [(("encoders.imag",), "names 'encoders.imag', which has no parameters"), (("0", "1"), "leaves nothing to train")],
)
def test_freezing_nothing_or_everything_is_refused(prefixes: tuple[str, ...], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        freeze_(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), prefixes)


def test_what_was_fixed_before_is_not_counted_as_fixed_by_us() -> None:
    pair = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    pair[0].weight.requires_grad_(requires_grad=False)
    fixed = freeze_(pair, ("0",))
    assert len(fixed) == 1
    assert torch.equal(fixed[0], pair[0].bias)
