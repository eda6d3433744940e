"""Keep some tokens and drop the others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, final, get_args

from triptych.algorithm.technique import Context, Range, Space, Technique
from triptych.algorithm.tokens.reduction import reduce_tokens
from triptych.model.multimodal import Multimodal

Scorer = Literal["class_attention", "max_min_diversity", "random", "stride"]


@final
@dataclass(frozen=True)
class KeepTokens(Technique):
    """Keep a `fraction` of each modality's tokens, those that the scorer ranks highest.

    fraction:   share of the tokens that stays, in whole percents
    scorer:     'class_attention', mean attention received (Zhang et al. 2024, FasterVLM);
                'max_min_diversity' (Alvar et al. 2025, DivPrune); the controls 'random' and 'stride'
    after:      index of the block after which tokens go
    modalities: names; None means all whose encoder has such a block and a fixed number of tokens
    """

    saves: ClassVar[frozenset[str]] = frozenset({"flops", "latency"})
    space: ClassVar[Space] = {"fraction": Range(0.2, 0.9), "scorer": get_args(Scorer), "after": Range(0, 3)}
    fraction: float = 0.5
    scorer: Scorer = "class_attention"
    after: int = 0
    modalities: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        self.require_fraction()
        self.require("scorer", f"one of {get_args(Scorer)}", holds=self.scorer in get_args(Scorer))
        self.require_number("after", "a block index", 0, 10_000, whole=True)
        self.require_names("modalities")

    def apply(self, model: Multimodal, context: Context) -> Multimodal:  # noqa: ARG002
        """Set the reduction in the encoders' configs; every weight stays."""
        return reduce_tokens(model, self.scorer, self.fraction, after=self.after, modalities=self.modalities)
