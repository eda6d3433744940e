"""Merge tokens that are alike, or neighbours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, final, get_args

from triptych.algorithm.technique import Context, Range, Space, Technique
from triptych.algorithm.tokens.reduction import reduce_tokens
from triptych.model.multimodal import Multimodal

Method = Literal["bipartite", "pool"]


@final
@dataclass(frozen=True)
class MergeTokens(Technique):
    """Merge tokens until a `fraction` is left; a merged token weighs as much as what it stands for.

    fraction:   share of the tokens that stays, in whole percents; at least 0.5 for 'bipartite'
    method:     'bipartite', the most alike pairs (Bolya et al. 2023, ToMe), or the control 'pool', neighbours
    after:      index of the block after which tokens merge
    modalities: names; None means all whose encoder has such a block and a fixed number of tokens
    """

    saves: ClassVar[frozenset[str]] = frozenset({"flops", "latency"})
    space: ClassVar[Space] = {"fraction": Range(0.5, 0.9), "method": get_args(Method), "after": Range(0, 3)}
    fraction: float = 0.5
    method: Method = "bipartite"
    after: int = 0
    modalities: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        self.require_fraction()
        self.require("method", f"one of {get_args(Method)}", holds=self.method in get_args(Method))
        enough = self.method != "bipartite" or self.fraction >= 0.5
        self.require("fraction", "at least 0.5 for 'bipartite', which merges pairs", holds=enough)
        self.require_number("after", "a block index", 0, 10_000, whole=True)
        self.require_names("modalities")

    def apply(self, model: Multimodal, context: Context) -> Multimodal:  # noqa: ARG002
        """Set the reduction in the encoders' configs; every weight stays."""
        return reduce_tokens(model, self.method, self.fraction, after=self.after, modalities=self.modalities)
