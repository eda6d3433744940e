"""Remove whole blocks."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, final, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from triptych.algorithm.rebuild import Path, edited, rebuild
from triptych.algorithm.technique import Context, Needs, Range, Space, Technique
from triptych.algorithm.weights.importance import run_all
from triptych.algorithm.weights.slicing import kept_units
from triptych.errors import RecipeError
from triptych.model.config import BlockConfig, ModelConfig
from triptych.model.multimodal import Multimodal
from triptych.tokens import Batch, Tokens

Ranking = Literal["influence", "last", "random"]
_BLOCK = re.compile(
    r"(?:encoders\.(?P<modality>\w+)\.blocks|(?P<shared>shared)|fusion\.trunk|fusion)\.layers\.(?P<number>\d+)"
)


@final
@dataclass(frozen=True)
class PruneLayers(Technique):
    """Keep a `fraction` of the blocks of every stack, those that change their tokens most (Men et al. 2024, ShortGPT).

    fraction:   share of the blocks that stays; rounded, but below one at least one block of each stack of two goes
    importance: 'influence', 1 − cos(h_in, h_out) on calibration data; the controls 'last', which drops the last
                blocks, and 'random'
    modalities: whose encoders to prune; None means all of them and the fusion
    batches:    calibration batches, for 'influence'

    A block that reduces tokens stays.
    """

    saves: ClassVar[frozenset[str]] = frozenset({"params", "size", "flops", "latency"})
    space: ClassVar[Space] = {"fraction": Range(0.25, 0.9), "importance": get_args(Ranking)}
    fraction: float = 0.5
    importance: Ranking = "influence"
    modalities: tuple[str, ...] | None = None
    batches: int = 8

    def __post_init__(self) -> None:
        self.require_fraction()
        self.require("importance", f"one of {get_args(Ranking)}", holds=self.importance in get_args(Ranking))
        self.require_names("modalities")
        self.require_number("batches", "a whole number from 1 to 10000", 1, 10_000, whole=True)

    @property
    def needs(self) -> Needs:
        """Calibration data where influence ranks the blocks."""
        return Needs.CALIBRATION if self.importance == "influence" else Needs.NOTHING

    def apply(self, model: Multimodal, context: Context) -> Multimodal:
        """Rank the blocks of every stack and take the others out.  Raises RecipeError when there is nothing to take."""
        stacks = self._stacks(model)
        if self.fraction == 1:
            return rebuild(model, model.config)
        ranks = self._ranks(model, stacks, context)
        kept = {path: _best(blocks, ranks[path], self.fraction) for path, blocks in stacks.items()}
        return keep_blocks(model, kept)

    def _stacks(self, model: Multimodal) -> dict[Path, tuple[BlockConfig, ...]]:
        if unknown := set(self.modalities or ()) - set(model.schema.names):
            raise RecipeError(f"no modality {sorted(unknown)}; this model has {list(model.schema.names)}")
        stacks = {path: blocks for path, blocks in stacks_of(model.config).items() if len(blocks) > 1}
        if self.modalities is not None:
            stacks = {path: blocks for path, blocks in stacks.items() if path[1] in self.modalities}
        if not any(_removable(blocks) for blocks in stacks.values()):
            raise RecipeError("PruneLayers finds nothing to prune: no stack of two blocks with one that may go")
        return stacks

    def _ranks(
        self, model: Multimodal, stacks: Mapping[Path, Sequence[BlockConfig]], context: Context
    ) -> dict[Path, Tensor]:
        if self.importance == "influence":
            found = block_influence(model, context.calibration(self.batches))
            if missing := sorted(str(path[1]) for path in stacks if path not in found):
                raise RecipeError(f"no calibration batch holds {missing}; add rows with them, or name other modalities")
            return found
        if self.importance == "last":
            return {path: -torch.arange(float(len(blocks))) for path, blocks in stacks.items()}
        return {
            path: torch.rand(len(blocks), generator=context.generator(number))
            for number, (path, blocks) in enumerate(stacks.items())
        }


def stacks_of(config: ModelConfig) -> dict[Path, tuple[BlockConfig, ...]]:
    """Runs of blocks by their place in the config: every encoder's, the shared ones, and the fusion's."""
    stacks: dict[Path, tuple[BlockConfig, ...]] = {
        ("encoders", name, "blocks"): encoder.blocks for name, encoder in config.encoders.items()
    }
    if config.shared:
        stacks["shared", "blocks"] = config.shared.blocks
    if config.fusion:
        stacks["fusion", "blocks"] = config.fusion.blocks
    return stacks


def keep_blocks(model: Multimodal, kept: Mapping[Path, Sequence[int]]) -> Multimodal:
    """A network with only some blocks of some stacks, in their order.  kept: block numbers by stack"""
    config = model.config
    for path, numbers in kept.items():
        blocks = stacks_of(config)[path]
        config = edited(config, path, tuple(blocks[number] for number in numbers))
    renamed = {_renamed(name, kept): tensor for name, tensor in model.state_dict().items()}
    return rebuild(model, config, {name: tensor for name, tensor in renamed.items() if name})


def _renamed(name: str, kept: Mapping[Path, Sequence[int]]) -> str:
    """Name of a tensor after the cut; empty when its block goes."""
    match = _BLOCK.match(name)
    if match is None or _stack(match) not in kept:
        return name
    numbers, number = kept[_stack(match)], int(match["number"])
    return f"{name[: match.start('number')]}{numbers.index(number)}{name[match.end() :]}" if number in numbers else ""


@torch.no_grad()
def block_influence(model: Multimodal, batches: Sequence[Batch]) -> dict[Path, Tensor]:
    """1 − cos(tokens in, tokens out) of every block, mean over real tokens, batches and modalities: (blocks,) by stack.

    A layer of a fusion counts with all its steps from tokens to tokens, readings of other modalities among them.  A
    block that reduces tokens counts as infinite.  Stacks that no batch reaches are left out.
    """
    steps: dict[str, list[Tensor]] = {}

    def listen(name: str) -> Callable[[nn.Module, tuple[object, ...], object], None]:
        def hook(_step: nn.Module, inputs: tuple[object, ...], output: object) -> None:
            if inputs and isinstance(inputs[0], Tokens) and isinstance(output, Tokens):
                steps.setdefault(name, []).append(_change(inputs[0], output))

        return hook

    handles = [m.register_forward_hook(listen(name)) for name, m in model.named_modules() if _BLOCK.match(name)]
    try:
        run_all(model, batches)
    finally:
        for handle in handles:
            handle.remove()
    found: dict[Path, dict[int, list[Tensor]]] = {}
    for name in _outermost(steps):
        if match := _BLOCK.match(name):
            found.setdefault(_stack(match), {}).setdefault(int(match["number"]), []).extend(steps[name])
    return {
        path: torch.stack([torch.stack(changes[n]).mean() for n in sorted(changes)]) for path, changes in found.items()
    }


def _outermost(names: Collection[str]) -> list[str]:
    """Modules that lie in no other of these modules: a step within a step is counted once."""
    return [name for name in names if not any(name.startswith(f"{other}.") for other in names)]


def _change(before: Tokens, after: Tokens) -> Tensor:
    if after.x.shape != before.x.shape:
        return torch.tensor(torch.inf)
    real = before.real()
    change = 1 - functional.cosine_similarity(before.x, after.x, dim=-1)
    return ((change * real).sum() / real.sum().clamp(min=1)).cpu()


def _stack(match: re.Match[str]) -> Path:
    if match["modality"]:
        return "encoders", match["modality"], "blocks"
    return match["shared"] or "fusion", "blocks"


def _removable(blocks: Sequence[BlockConfig]) -> list[int]:
    return [number for number, block in enumerate(blocks) if block.reduce is None]


def _best(blocks: Sequence[BlockConfig], rank: Tensor, fraction: float) -> list[int]:
    removable = _removable(blocks)
    go = min(len(blocks) - kept_units(len(blocks), fraction), len(removable))
    gone = set(sorted(removable, key=lambda number: float(rank[number]))[:go])
    return [number for number in range(len(blocks)) if number not in gone]
