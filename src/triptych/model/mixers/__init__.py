"""How tokens talk to each other.  A mixer is its own file plus one line here."""

from triptych.model.mixers.attention import Attention
from triptych.model.mixers.depthwise import Depthwise
from triptych.model.mixers.mixer import Mixer
from triptych.model.mixers.token_mixing import TokenMixing

MIXERS: dict[str, type[Mixer]] = {
    "attention": Attention,
    "depthwise": Depthwise,
    "token_mixing": TokenMixing,
}

__all__ = ["MIXERS", "Attention", "Depthwise", "Mixer", "TokenMixing"]
