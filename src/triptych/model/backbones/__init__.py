"""Encoders that were trained elsewhere, as parts of stems: a family is its own file and one line here.

`triptych.model.pretrained` reads their weights from folders.
"""

from triptych.model.backbones.backbone import Backbone
from triptych.model.backbones.bert import Bert
from triptych.model.backbones.clip import ClipText, ClipVision
from triptych.model.backbones.dinov2 import Dinov2
from triptych.model.backbones.efficientnet import EfficientNet
from triptych.model.backbones.siglip import SiglipText, SiglipVision
from triptych.model.backbones.speech_embedding import SpeechEmbedding
from triptych.model.backbones.vit import Vit
from triptych.model.backbones.wav2vec2 import Wav2Vec2
from triptych.model.backbones.whisper import Whisper

BACKBONES: dict[str, type[Backbone]] = {
    "bert": Bert,
    "clip_text": ClipText,
    "clip_vision": ClipVision,
    "dinov2": Dinov2,
    "efficientnet": EfficientNet,
    "siglip_text": SiglipText,
    "siglip_vision": SiglipVision,
    "speech_embedding": SpeechEmbedding,
    "vit": Vit,
    "wav2vec2": Wav2Vec2,
    "whisper": Whisper,
}

__all__ = ["BACKBONES", "Backbone"]
