"""How tokens talk to each other.  A mixer is its own file plus one line here."""

from triptych.model.mixers.attention import Attention
from triptych.model.mixers.depthwise import Depthwise
from triptych.model.mixers.mixer import Mixer

MIXERS: dict[str, type[Mixer]] = {
    "attention": Attention,
    "depthwise": Depthwise,
}

__all__ = ["MIXERS", "Attention", "Depthwise", "Mixer"]
