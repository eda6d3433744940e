"""What to compute: stems, mixers, channel blocks, encoders and fusion."""

from triptych.model.build import Sizes, build
from triptych.model.config import ModelConfig
from triptych.model.multimodal import Multimodal, example_batch
from triptych.model.presets import PRESETS
from triptych.model.store import load_model, save_model

__all__ = ["PRESETS", "ModelConfig", "Multimodal", "Sizes", "build", "example_batch", "load_model", "save_model"]
