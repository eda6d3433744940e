"""What S3 has to be better than, when trained as long: one line each in `CONTROLS`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

from triptych.model.multimodal import Multimodal
from triptych.model.s3 import s3_network, shared_network
from triptych.schema import Schema
from triptych.train.s3.objective import SPECIALISE, Weights


@final
@dataclass(frozen=True)
class Control:
    """An objective, and the block that it trains.

    mixed: a mixture in which every expert works on every token, as many as S3 has active; else one perceptron
    """

    weights: Weights
    mixed: bool = False

    def network(
        self,
        schema: Schema,
        *,
        granularity: int,
        expansion: float,
        modalities: Mapping[str, Mapping[str, Any]] | None = None,
        **sizes: Any,
    ) -> Multimodal:
        """A fresh network with as many active parameters as S3's."""
        if self.mixed:
            return s3_network(
                schema, granularity=granularity, spread=1, expansion=expansion, modalities=modalities, **sizes
            )
        return shared_network(schema, modalities=modalities, channel="mlp", expansion=expansion, **sizes)


CONTROLS: Mapping[str, Control] = {
    "cross": Control(Weights(discriminate=1.0)),
    "cross_self": Control(Weights(represent=1.0, discriminate=1.0)),
    "mixture": Control(SPECIALISE, mixed=True),
    "supervised": Control(Weights(suffice=1.0, group=1.0)),
}
