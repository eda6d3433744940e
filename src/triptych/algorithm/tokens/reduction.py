"""Where a token reduction may go: shared by keeping and merging."""

from __future__ import annotations

from collections.abc import Set

from triptych.algorithm.rebuild import edited, rebuild
from triptych.errors import RecipeError
from triptych.model.config import ReduceConfig
from triptych.model.connectors import connector_class
from triptych.model.fusion import FUSIONS
from triptych.model.mixers import MIXERS
from triptych.model.multimodal import Multimodal
from triptych.schema import Modality


def reduce_tokens(
    model: Multimodal, method: str, fraction: float, *, after: int, modalities: tuple[str, ...] | None
) -> Multimodal:
    """The same weights, with fewer tokens after block `after` of the encoders.  Raises RecipeError.

    modalities: those that must be reduced; None means all that can be (see `obstacle`)
    """
    reasons = {modality.name: obstacle(model, modality, after) for modality in model.schema.modalities}
    if unknown := set(modalities or ()) - reasons.keys():
        raise RecipeError(f"no modality {sorted(unknown)}; this model has {sorted(reasons)}")
    names = [name for name, reason in reasons.items() if not reason] if modalities is None else list(modalities)
    refused = {name: reasons[name] for name in (names or reasons) if reasons[name]}
    if refused:
        raise RecipeError(f"cannot reduce tokens: {'; '.join(f'{n} {why}' for n, why in refused.items())}")
    config = model.config
    for name in names:
        change = None if fraction == 1 else ReduceConfig(method, fraction)
        config = edited(config, ("encoders", name, "blocks", after, "reduce"), change)
    return rebuild(model, config)


def obstacle(model: Multimodal, modality: Modality, after: int) -> str:
    """Why the tokens of a modality cannot be reduced after a block; empty when they can.

    Texts are left alone: they are padded to the longest of their batch, so a share of the padded length would make an
    answer depend on its neighbours in the batch.
    """
    encoder = model.config.encoders[modality.name]
    blocks = encoder.blocks
    if modality.kind == "text":
        return "is text, whose padded length differs from batch to batch"
    if after >= len(blocks):
        return f"has {len(blocks)} blocks, so there is none with index {after}"
    if blocks[after].reduce is not None:
        return f"is already reduced after block {after}; choose another block"
    if encoder.connector and not connector_class(encoder.connector.name).any_tokens:
        return f"needs all tokens in their places in its connector {encoder.connector.name!r}"
    fusion = model.config.fusion
    goes_on = model.config.shared or encoder.connector or (fusion and FUSIONS[fusion.name].mixer)
    if after == len(blocks) - 1 and not goes_on:
        return f"ends with block {after}, after which nothing gets cheaper"
    return _bound(modality, {block.mixer for block in blocks[after + 1 :]}, after)


def _bound(modality: Modality, mixers: Set[str], after: int) -> str:
    """What later mixers need of the places of all tokens; empty when nothing."""
    if found := sorted(name for name in mixers if MIXERS[name].needs_count):
        return f"needs a known number of tokens in {', '.join(found)} after block {after}"
    if modality.kind in {"image", "video", "points"} and (
        found := sorted(name for name in mixers if MIXERS[name].needs_grid)
    ):
        return f"needs its whole grid in {', '.join(found)} after block {after}"
    return ""
