"""What each token does, at most with a look at its neighbours.  A channel block is its own file plus one line here."""

from triptych.model.channels.channel import Channel
from triptych.model.channels.elastic_mlp import ElasticMlp
from triptych.model.channels.experts import Experts
from triptych.model.channels.gated_mlp import GatedMlp
from triptych.model.channels.inverted_bottleneck import InvertedBottleneck
from triptych.model.channels.kan import Kan
from triptych.model.channels.low_rank_experts import LowRankExperts
from triptych.model.channels.mlp import Mlp

CHANNELS: dict[str, type[Channel]] = {
    "elastic_mlp": ElasticMlp,
    "experts": Experts,
    "gated_mlp": GatedMlp,
    "inverted_bottleneck": InvertedBottleneck,
    "kan": Kan,
    "low_rank_experts": LowRankExperts,
    "mlp": Mlp,
}

__all__ = [
    "CHANNELS",
    "Channel",
    "ElasticMlp",
    "Experts",
    "GatedMlp",
    "InvertedBottleneck",
    "Kan",
    "LowRankExperts",
    "Mlp",
]
