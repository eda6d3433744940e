"""What each token does alone.  A channel block is its own file plus one line here."""

from triptych.model.channels.channel import Channel
from triptych.model.channels.mlp import Mlp

CHANNELS: dict[str, type[Channel]] = {
    "mlp": Mlp,
}

__all__ = ["CHANNELS", "Channel", "Mlp"]
