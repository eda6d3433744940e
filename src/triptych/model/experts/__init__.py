"""Many channel blocks of which every token meets a few: routers, and the dispatch to the experts they choose."""

from triptych.model.experts.dispatch import ExpertMlps, ExpertMlpsGraph
from triptych.model.experts.grouped import GROUPED_FLOPS, GroupedDense, grouped_matmul
from triptych.model.experts.losses import balance_loss, mean_score, z_loss
from triptych.model.experts.routers import ROUTERS, Router, make_router
from triptych.model.experts.routers.router import token_choice
from triptych.model.experts.routing import Routing

__all__ = [
    "GROUPED_FLOPS",
    "ROUTERS",
    "ExpertMlps",
    "ExpertMlpsGraph",
    "GroupedDense",
    "Router",
    "Routing",
    "balance_loss",
    "grouped_matmul",
    "make_router",
    "mean_score",
    "token_choice",
    "z_loss",
]
