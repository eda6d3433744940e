"""How tokens talk to each other.  A mixer is its own file plus one line here."""

from triptych.model.mixers.attention import Attention
from triptych.model.mixers.depthwise import Depthwise
from triptych.model.mixers.hashed import Hashed
from triptych.model.mixers.linear import Linear
from triptych.model.mixers.low_rank import LowRank
from triptych.model.mixers.mixer import Mixer
from triptych.model.mixers.pooling import Pooling
from triptych.model.mixers.prob_sparse import ProbSparse
from triptych.model.mixers.recurrent import Recurrent
from triptych.model.mixers.state_space import StateSpace
from triptych.model.mixers.token_mixing import TokenMixing
from triptych.model.mixers.window import Window

MIXERS: dict[str, type[Mixer]] = {
    "attention": Attention,
    "depthwise": Depthwise,
    "hashed": Hashed,
    "linear": Linear,
    "low_rank": LowRank,
    "pooling": Pooling,
    "prob_sparse": ProbSparse,
    "recurrent": Recurrent,
    "state_space": StateSpace,
    "token_mixing": TokenMixing,
    "window": Window,
}

__all__ = [
    "MIXERS",
    "Attention",
    "Depthwise",
    "Hashed",
    "Linear",
    "LowRank",
    "Mixer",
    "Pooling",
    "ProbSparse",
    "Recurrent",
    "StateSpace",
    "TokenMixing",
    "Window",
]
