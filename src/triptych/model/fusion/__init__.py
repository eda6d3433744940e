"""From tokens per modality to one vector; each takes any subset.  A fusion is its own file plus one line here."""

from triptych.model.fusion.bottleneck import BottleneckFusion
from triptych.model.fusion.early import EarlyFusion
from triptych.model.fusion.fusion import Fusion
from triptych.model.fusion.late import LateFusion

FUSIONS: dict[str, type[Fusion]] = {
    "bottleneck": BottleneckFusion,
    "early": EarlyFusion,
    "late": LateFusion,
}

__all__ = ["FUSIONS", "BottleneckFusion", "EarlyFusion", "Fusion", "LateFusion"]
