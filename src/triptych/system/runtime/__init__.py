"""Run a bundle with numpy and onnxruntime alone."""

from triptych.system.runtime.bundle import Bundle
from triptych.system.runtime.index import Index
from triptych.system.runtime.manifest import Manifest
from triptych.system.runtime.predict import Prediction
from triptych.system.runtime.wiring import Point

__all__ = ["Bundle", "Index", "Manifest", "Point", "Prediction"]
