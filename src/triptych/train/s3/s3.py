"""S3: specialise experts without labels, select among them for a task, sparsify their routes (seed 004).

    s3 = S3(s3_network(data.schema, granularity=4)).specialise(data).select(data)
    choice = s3.choose(data)
    small = s3.sparsify(choice.share, way="score", data=data)   # what is exported: `small.model`

The equations are those of MECHANISMS, which has them second-hand; choices of ours are said where they are made.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

import numpy as np
import torch
from torch import Tensor

from triptych.data.dataset import Dataset, Split
from triptych.data.loader import batches
from triptych.errors import ModelError, RecipeError
from triptych.model.config import RoutesConfig, RouteWay
from triptych.model.experts.sparsify import pair_scores
from triptych.model.experts.statistics import watched_routers
from triptych.model.s3 import expert_blocks, routers, with_routes
from triptych.train.augment import Augment, Augmentation
from triptych.train.config import TrainConfig
from triptych.train.evaluate import in_eval
from triptych.train.loop import fit
from triptych.train.s3.choice import SHARES, Choice, choose_share
from triptych.train.s3.objective import SELECT, SPECIALISE, Alignment, Views, Weights, modality_vectors
from triptych.train.s3.probe import Probe, fit_probe

if TYPE_CHECKING:
    from triptych.model.multimodal import Multimodal

DEFAULT = TrainConfig(epochs=10, batch_size=64, lr=1e-3, patience=None)


@final
@dataclass(frozen=True, eq=False)
class S3:
    """A network of experts on its way through the three stages.  Every verb gives a new object; `model` stays.

    temperature: of every contrast
    strength:    of the random changes that make two views of a row, 1 being the usual amount
    """

    model: Multimodal
    temperature: float = 0.1
    strength: float = 1.0

    def __post_init__(self) -> None:
        if not expert_blocks(self.model.config):
            raise ModelError("S3 needs blocks with channel='experts', and the network has none; use s3_network(…)")

    def specialise(self, data: Dataset, config: TrainConfig = DEFAULT, *, weights: Weights = SPECIALISE) -> S3:
        """Form experts without labels: λ_rep · mean_m InfoNCE[m→m] over two views + λ_dsc · mean InfoNCE[m→m'] +
        λ_aux · L_routing.  Every parameter but the head is trained.
        """
        return self._with(align(self.model, data, config, Alignment(weights, self.temperature), self.strength))

    def select(self, data: Dataset, config: TrainConfig = DEFAULT, *, weights: Weights = SELECT) -> S3:
        """Fit the routers alone to the task: λ_suff · SupCon(across modalities, same label) + λ_min · (−E⟨μ_x, μ̂_y⟩).

        Nothing keeps the experts' loads even: a task may need few of them.
        """
        if weights.route:
            raise RecipeError("selecting has no term for balance; set weights.route to 0")
        own = tuple(f"{name}." for name in routers(self.model))
        rest = tuple(name for name, _ in self.model.named_parameters() if not name.startswith(own))
        config = dataclasses.replace(config, freeze=rest)
        return self._with(align(self.model, data, config, Alignment(weights, self.temperature), self.strength))

    def sparsify(
        self,
        share: float,
        *,
        way: RouteWay = "row",
        data: Dataset | None = None,
        rows: int = 512,
        batch_size: int = 128,
    ) -> S3:
        """Keep the best-scored `share` of the routes of every block, without training.

        way: 'batch', among all routes of a batch, as in the paper; 'row', among each row's own; 'score', those above a
             number that was measured on the first `rows` training rows of `data`, block by block, so that `share` of
             their routes pass; 'random', the control.  'row' and 'score' do not look at the rest of a batch.
        Raises RecipeError for a share outside (0, 1] and for 'score' without data.
        """
        if not 0 < share <= 1:
            raise RecipeError(f"the share of routes to keep must be in (0, 1], got {share}")
        count = len(expert_blocks(self.model.config))
        if way != "score":
            return self._with(with_routes(self.model, [RoutesConfig(way, share)] * count))
        if data is None:
            raise RecipeError("way='score' measures which score to ask for; pass data=…, or use way='row'")
        settings: list[RoutesConfig | None] = [None] * count
        model = with_routes(self.model, settings)
        sample = data.train.subset(np.arange(min(rows, len(data.train))))
        for number in range(count if share < 1 else 0):
            scores = route_scores(model, sample, number, batch_size=batch_size)
            settings[number] = RoutesConfig("score", least=float(scores.quantile(1 - share)))
            model = with_routes(self.model, settings)
        return self._with(model)

    def choose(
        self,
        data: Dataset,
        *,
        shares: Sequence[float] = SHARES,
        way: RouteWay = "row",
        rows: int | None = None,
        seed: int = 0,
    ) -> Choice:
        """The share of routes whose linear probe is best on validation, with intervals.

        rows: of the training split, for the probes; None means all
        """
        outputs = {}
        train = data.train if rows is None else data.train.subset(np.arange(min(rows, len(data.train))))
        for share in shares:
            sparse = self.sparsify(share, way=way, data=data)
            probe = sparse.probe(train)
            outputs[share] = probe(sparse.features(data.validation)).float().numpy()
        targets = np.asarray(data.validation.targets)
        return choose_share(outputs, targets, data.schema, generator=np.random.default_rng(seed))

    def features(self, split: Split, *, batch_size: int = 256) -> Tensor:
        """What a probe reads of every row (see `features`): (rows, modalities · dim)."""
        return features(self.model, split, batch_size=batch_size)

    def probe(self, split: Split) -> Probe:
        """A linear probe of the task, fitted to a split."""
        return fit_probe(self.features(split), np.asarray(split.targets), self.model.schema)

    def _with(self, model: Multimodal) -> S3:
        return dataclasses.replace(self, model=model)


def align(
    model: Multimodal, data: Dataset, config: TrainConfig, objective: Alignment, strength: float = 1.0
) -> Multimodal:
    """Train a copy of `model` by an objective on two views; the last weights are taken, as no metric judges them."""
    config = dataclasses.replace(config, auxiliary_weight=0.0, augment=0.0, patience=None)
    change: Augmentation = Augment.default(model.schema, strength)
    train = Dataset(data.schema, {"train": data.train}, data.about)
    return fit(model, train, config, objective=objective, augment=Views(change))


def features(model: Multimodal, split: Split, *, batch_size: int = 256) -> Tensor:
    """The modalities' vectors of length one, side by side, zeros where a row lacks one: (rows, modalities · dim)."""
    device = next(model.parameters()).device
    found = []
    with in_eval(model), torch.inference_mode():
        for batch in batches(split, model.schema, batch_size=batch_size, seed=0, shuffle=False):
            vectors, _ = modality_vectors(model, batch.to(device))
            width = next(iter(vectors.values())).shape
            nothing = torch.zeros(width, device=device)
            found.append(torch.cat([vectors.get(name, nothing) for name in model.schema.names], dim=1).cpu())
    return torch.cat(found).clone()


def activations(model: Multimodal, split: Split, number: int = 0, *, batch_size: int = 128) -> dict[str, Tensor]:
    """What each expert of one block counts for each token, zero where it does not work, by modality:
    (rows, tokens, experts).

    For blocks that all modalities share, and splits whose rows have them all.
    """
    wanted = list(routers(model))[number].removesuffix(".router")
    device = next(model.parameters()).device
    found: dict[str, list[Tensor]] = {name: [] for name in model.schema.names}
    with in_eval(model), torch.inference_mode():
        for batch in batches(split, model.schema, batch_size=batch_size, seed=0, shuffle=False):
            with watched_routers(model) as routings:
                model.encode_all(batch.to(device))
            for name, routing in zip(model.schema.names, routings[wanted], strict=True):
                gates = torch.zeros_like(routing.scores)
                gates[routing.token, routing.expert] = routing.gate * routing.working()
                found[name].append(gates.view(len(batch), -1, gates.shape[1]).cpu())
    return {name: torch.cat(parts).clone() for name, parts in found.items()}


def route_scores(model: Multimodal, split: Split, number: int, *, batch_size: int = 128) -> Tensor:
    """Scores of all pairs that the router of one block with experts chose on a split: (pairs,)."""
    wanted = list(routers(model))[number].removesuffix(".router")
    device = next(model.parameters()).device
    with watched_routers(model) as routings, in_eval(model), torch.inference_mode():
        for batch in batches(split, model.schema, batch_size=batch_size, seed=0, shuffle=False):
            model.encode_all(batch.to(device))
    return torch.cat([pair_scores(routing)[routing.working()] for routing in routings[wanted]])


STAGES = {"specialise": S3.specialise, "select": S3.select, "sparsify": S3.sparsify}
"""The verbs by name."""
