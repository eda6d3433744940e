"""What each token does alone.  A channel block is its own file plus one line here."""

from triptych.model.channels.mlp import Mlp

CHANNELS = {
    "mlp": Mlp,
}

__all__ = ["CHANNELS", "Mlp"]
