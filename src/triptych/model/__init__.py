"""What to compute: stems, mixers, channel blocks, encoders, connectors, fusion and adapters."""

from triptych.model.adapt import adapt, merge, trainable_parameters
from triptych.model.build import Sizes, build
from triptych.model.config import AdapterConfig, ConnectorConfig, ModelConfig
from triptych.model.multimodal import Multimodal, example_batch
from triptych.model.presets import PRESETS
from triptych.model.store import load_model, save_model
from triptych.model.upcycle import upcycle

__all__ = [
    "PRESETS",
    "AdapterConfig",
    "ConnectorConfig",
    "ModelConfig",
    "Multimodal",
    "Sizes",
    "adapt",
    "build",
    "example_batch",
    "load_model",
    "merge",
    "save_model",
    "trainable_parameters",
    "upcycle",
]
