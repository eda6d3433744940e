"""Write and verify bundles."""

from triptych.system.bundle.card import model_card
from triptych.system.bundle.export import export
from triptych.system.bundle.weights import share_weights
from triptych.system.bundle.write import verify, write_bundle

__all__ = ["export", "model_card", "share_weights", "verify", "write_bundle"]
