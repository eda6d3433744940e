"""How tokens and experts find each other.  A router is its own file plus one line here."""

from triptych.errors import ModelError
from triptych.model.config import BlockConfig
from triptych.model.experts.routers.expert_choice import ExpertChoice
from triptych.model.experts.routers.laplace import Laplace
from triptych.model.experts.routers.modality import ModalityAware
from triptych.model.experts.routers.router import Router
from triptych.model.experts.routers.top_k import TopK

ROUTERS: dict[str, type[Router]] = {
    "expert_choice": ExpertChoice,
    "laplace": Laplace,
    "modality": ModalityAware,
    "top_k": TopK,
}


def make_router(dim: int, block: BlockConfig) -> Router:
    """The router that a block's config names.  Raises ModelError for an unknown one."""
    if block.router not in ROUTERS:
        raise ModelError(f"unknown router {block.router!r}; known are {sorted(ROUTERS)}")
    return ROUTERS[block.router](dim, block)


__all__ = ["ROUTERS", "ExpertChoice", "Laplace", "ModalityAware", "Router", "TopK", "make_router"]
