"""Many channel blocks of which every token meets a few: routers, and the dispatch to the experts they choose."""

from triptych.model.experts.dispatch import ExpertMlps, ExpertMlpsGraph
from triptych.model.experts.grouped import GROUPED_FLOPS, GroupedDense, grouped_matmul
from triptych.model.experts.losses import balance_loss, entropy_losses, mean_score, z_loss
from triptych.model.experts.routers import ROUTERS, Router, make_router
from triptych.model.experts.routers.router import token_choice
from triptych.model.experts.routing import Routing
from triptych.model.experts.statistics import (
    RouterStatistics,
    observed_routers,
    router_statistics,
    watched_routers,
)

__all__ = [
    "GROUPED_FLOPS",
    "ROUTERS",
    "ExpertMlps",
    "ExpertMlpsGraph",
    "GroupedDense",
    "Router",
    "RouterStatistics",
    "Routing",
    "balance_loss",
    "entropy_losses",
    "grouped_matmul",
    "make_router",
    "mean_score",
    "observed_routers",
    "router_statistics",
    "token_choice",
    "watched_routers",
    "z_loss",
]
