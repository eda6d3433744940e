"""Modality-adaptive attention: tokens go to the modalities that are informative for the row at hand.

After the seed "Efficient Multimodal Learning", which asks that compute be allocated by the informativeness of each
modality for a given input and leaves open how.  Here: every token is read by a small layer of its own,
h = gelu(W x); the means of h and h² over the tokens, of all modalities side by side and standardised, give each count
of tokens of each modality a worth, and a choice is worth the sum of its counts.  Where ranks are learnt, a token counts
as much as 2 σ(w·x / √dim), and those that count most go first.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from triptych.model.config import GateConfig
from triptych.model.dense import Dense
from triptych.model.gates.gate import Gate, Look, here
from triptych.model.standardise import Standardise
from triptych.select import spread
from triptych.tokens import Tokens

_TIE = 1e-4  # of scores: small against what is learnt, and an even spread before anything is
_LEAST = 1e-10  # variance: those of a text whose words are small vectors differ by a ten-thousandth
_FAR = 5.0  # standard deviations; what never varied while training may be a thousand away when a modality is missing


@final
class AdaptiveGate(Gate):
    """O(Σ tokens · dim · hidden) time.  A fresh one changes no token, and keeps as many as it may, evenly spread.  One
    without ranks goes on doing so, and has no tokens to sort when it runs.

    dims, tokens: width and number of each modality's stem tokens
    """

    member: Tensor

    def __init__(self, dims: Mapping[str, int], tokens: Mapping[str, int], config: GateConfig) -> None:
        super().__init__(dims, tokens, config)
        hidden = config.hidden
        self.read = nn.ModuleDict({name: Dense(dim, hidden, precision="float32") for name, dim in dims.items()})
        ranked = dims if config.rank else {}
        self.rank = nn.ModuleDict({n: Dense(dim, 1, precision="float32", bias=False) for n, dim in ranked.items()})
        self.standardise = Standardise(len(dims) * self.width, least=_LEAST, far=_FAR)
        self.mix = Dense(len(dims) * self.width, 2 * hidden, precision="float32")
        self.out = Dense(2 * hidden, sum(map(len, self.counts.values())), precision="float32")
        for name, count in tokens.items():
            self.register_buffer(f"spread_{name}", spread(count) * _TIE, persistent=False)
        self.register_buffer("member", self._members(), persistent=False)
        with torch.no_grad():
            for layer in (*self.rank.values(), self.out):
                for parameter in layer.parameters():
                    parameter.zero_()
            shares = [c / tokens[n] for n in self.names for c in self.counts[n]]
            cast("Tensor", self.out.bias).copy_(torch.tensor(shares))

    @property
    def width(self) -> int:
        """Means of h and h², and whether the modality is here."""
        return 2 * self.config.hidden + 1

    def look(self, name: str, tokens: Tokens) -> Look:
        """tokens: (batch, tokens, dim); the gate's own loss does not reach the stem"""
        x, there = tokens.x.detach(), here(tokens)
        features = functional.gelu(self.read[name](x))
        moments = tokens.with_x(torch.cat([features, features * features], dim=-1)).mean()
        summary = torch.cat([moments, there], dim=1)
        even = self.get_buffer(f"spread_{name}")[: x.shape[1]]
        if not self.config.rank:
            return Look(tokens, even.expand(x.shape[0], -1), summary)
        rank = self.rank[name](x) * x.shape[-1] ** -0.5
        return Look(tokens.with_x(tokens.x * (2 * rank.sigmoid())), rank.squeeze(-1) + even, summary)

    def worth(self, summaries: Tensor) -> Tensor:
        """summaries: (batch, modalities, width) → (batch, choices)"""
        x = self.standardise(summaries.flatten(1))
        worth: Tensor = self.out(functional.gelu(self.mix(x))) @ self.member
        return worth

    def adjust_(self, summaries: Tensor) -> None:
        """Standardise by these rows, which differ little against what they share, and find them all alike at first."""
        self.standardise.set_(summaries.flatten(1))
        nn.init.zeros_(self.out.weight)

    def _members(self) -> Tensor:
        """Which counts make up each choice: (counts of all modalities, choices), 0 or 1."""
        rows = [self.keep[:, place] == count for place, name in enumerate(self.names) for count in self.counts[name]]
        return torch.stack(rows).to(torch.float32)
