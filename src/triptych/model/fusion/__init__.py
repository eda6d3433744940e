"""From tokens per modality to one vector; each takes any subset.  A fusion is its own file plus one line here."""

from triptych.model.fusion.bottleneck import BottleneckFusion
from triptych.model.fusion.cross import CrossFusion
from triptych.model.fusion.early import EarlyFusion
from triptych.model.fusion.fusion import Fusion
from triptych.model.fusion.gated import GatedFusion
from triptych.model.fusion.hybrid import HybridFusion
from triptych.model.fusion.late import LateFusion
from triptych.model.fusion.linear_cross import LinearCrossFusion
from triptych.model.fusion.low_rank import LowRankFusion
from triptych.model.fusion.missing_bank import MissingBankFusion
from triptych.model.fusion.multiplicative import MultiplicativeFusion
from triptych.model.fusion.perceiver import PerceiverFusion
from triptych.model.fusion.product_of_experts import ProductOfExpertsFusion
from triptych.model.fusion.tensor import TensorFusion

FUSIONS: dict[str, type[Fusion]] = {
    "bottleneck": BottleneckFusion,
    "cross": CrossFusion,
    "early": EarlyFusion,
    "gated": GatedFusion,
    "hybrid": HybridFusion,
    "late": LateFusion,
    "linear_cross": LinearCrossFusion,
    "low_rank": LowRankFusion,
    "missing_bank": MissingBankFusion,
    "multiplicative": MultiplicativeFusion,
    "perceiver": PerceiverFusion,
    "product_of_experts": ProductOfExpertsFusion,
    "tensor": TensorFusion,
}

__all__ = [
    "FUSIONS",
    "BottleneckFusion",
    "CrossFusion",
    "EarlyFusion",
    "Fusion",
    "GatedFusion",
    "HybridFusion",
    "LateFusion",
    "LinearCrossFusion",
    "LowRankFusion",
    "MissingBankFusion",
    "MultiplicativeFusion",
    "PerceiverFusion",
    "ProductOfExpertsFusion",
    "TensorFusion",
]
