"""How to compute less.  A technique is its own file plus one line here."""

from triptych.algorithm.recipe import dump_recipe, load_recipe, make_technique
from triptych.algorithm.teaching.distill import Distill
from triptych.algorithm.teaching.finetune import Finetune
from triptych.algorithm.teaching.student import Student
from triptych.algorithm.technique import Context, Needs, Range, Technique, compress
from triptych.algorithm.tokens.adapt import AdaptTokens
from triptych.algorithm.tokens.keep import KeepTokens
from triptych.algorithm.tokens.merge import MergeTokens
from triptych.algorithm.weights.elastic import at_width
from triptych.algorithm.weights.layers import PruneLayers
from triptych.algorithm.weights.prune import PruneChannels, PruneHeads, PruneWidth
from triptych.algorithm.weights.quantize import Int8, Int8Weights

TECHNIQUES: dict[str, type[Technique]] = {
    "AdaptTokens": AdaptTokens,
    "Distill": Distill,
    "Finetune": Finetune,
    "Int8": Int8,
    "Int8Weights": Int8Weights,
    "KeepTokens": KeepTokens,
    "MergeTokens": MergeTokens,
    "PruneChannels": PruneChannels,
    "PruneHeads": PruneHeads,
    "PruneLayers": PruneLayers,
    "PruneWidth": PruneWidth,
    "Student": Student,
}

__all__ = [
    "TECHNIQUES",
    "AdaptTokens",
    "Context",
    "Distill",
    "Finetune",
    "Int8",
    "Int8Weights",
    "KeepTokens",
    "MergeTokens",
    "Needs",
    "PruneChannels",
    "PruneHeads",
    "PruneLayers",
    "PruneWidth",
    "Range",
    "Student",
    "Technique",
    "at_width",
    "compress",
    "dump_recipe",
    "load_recipe",
    "make_technique",
]
