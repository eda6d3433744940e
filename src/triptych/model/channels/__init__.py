"""What each token does, at most with a look at its neighbours.  A channel block is its own file plus one line here."""

from triptych.model.channels.channel import Channel
from triptych.model.channels.gated_mlp import GatedMlp
from triptych.model.channels.inverted_bottleneck import InvertedBottleneck
from triptych.model.channels.kan import Kan
from triptych.model.channels.mlp import Mlp

CHANNELS: dict[str, type[Channel]] = {
    "gated_mlp": GatedMlp,
    "inverted_bottleneck": InvertedBottleneck,
    "kan": Kan,
    "mlp": Mlp,
}

__all__ = ["CHANNELS", "Channel", "GatedMlp", "InvertedBottleneck", "Kan", "Mlp"]
