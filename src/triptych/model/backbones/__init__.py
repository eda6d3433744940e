"""Encoders that were trained elsewhere, as parts of stems: a family is its own file and one line here.

`triptych.model.pretrained` reads their weights from folders.
"""

from triptych.model.backbones.backbone import Backbone
from triptych.model.backbones.bert import Bert
from triptych.model.backbones.vit import Vit

BACKBONES: dict[str, type[Backbone]] = {
    "bert": Bert,
    "vit": Vit,
}

__all__ = ["BACKBONES", "Backbone"]
