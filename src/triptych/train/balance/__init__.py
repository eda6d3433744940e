"""Keeping one modality from silencing the others while training.  A way is its own file plus one line here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from triptych.errors import RecipeError
from triptych.train.balance.adaptive import Adaptive
from triptych.train.balance.balance import Balance
from triptych.train.balance.blending import Blending
from triptych.train.balance.on_the_fly import OnTheFly
from triptych.train.balance.prototypes import Prototypes
from triptych.train.config import TrainConfig

if TYPE_CHECKING:
    from triptych.model.multimodal import Multimodal

BALANCES: dict[str, type[Balance]] = {
    "adaptive": Adaptive,
    "blending": Blending,
    "on_the_fly": OnTheFly,
    "prototypes": Prototypes,
}

__all__ = ["BALANCES", "Adaptive", "Balance", "Blending", "OnTheFly", "Prototypes", "make_balance"]


def make_balance(config: TrainConfig, model: Multimodal) -> Balance | None:
    """What a run's options ask for; None where they ask for nothing.  Raises RecipeError."""
    if not config.balance:
        return None
    if config.balance not in BALANCES:
        raise RecipeError(f"TrainConfig.balance must be one of {sorted(BALANCES)} or empty, got {config.balance!r}")
    if len(model.schema.names) < 2 or model.schema.task == "retrieval":
        raise RecipeError(
            f"balance={config.balance!r} weighs several modalities of one answer against each other; set it to '' for "
            f"{model.schema.task} from {list(model.schema.names)}"
        )
    return BALANCES[config.balance](model, config.balance_strength)
