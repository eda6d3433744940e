"""How to compute less.  A technique is its own file plus one line here."""

from triptych.algorithm.recipe import dump_recipe, load_recipe, make_technique
from triptych.algorithm.technique import Context, Needs, Range, Technique, compress
from triptych.algorithm.tokens.keep import KeepTokens
from triptych.algorithm.tokens.merge import MergeTokens

TECHNIQUES: dict[str, type[Technique]] = {
    "KeepTokens": KeepTokens,
    "MergeTokens": MergeTokens,
}

__all__ = [
    "TECHNIQUES",
    "Context",
    "KeepTokens",
    "MergeTokens",
    "Needs",
    "Range",
    "Technique",
    "compress",
    "dump_recipe",
    "load_recipe",
    "make_technique",
]
