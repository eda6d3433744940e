"""Raw values to tokens; preprocessing is inside, so it exports with the network.

A modality kind's usual stem has its name; the others are asked for by `StemConfig.form`.
"""

from triptych.model.stems.audio import AudioStem
from triptych.model.stems.features import FeaturesStem
from triptych.model.stems.image import ImageStem
from triptych.model.stems.pretrained import PretrainedStem
from triptych.model.stems.series import SeriesStem
from triptych.model.stems.stem import Stem
from triptych.model.stems.summary import SummaryStem
from triptych.model.stems.table import TableStem
from triptych.model.stems.text import TextStem

STEMS: dict[str, type[Stem]] = {
    "audio": AudioStem,
    "features": FeaturesStem,
    "image": ImageStem,
    "pretrained": PretrainedStem,
    "series": SeriesStem,
    "summary": SummaryStem,
    "table": TableStem,
    "text": TextStem,
}

__all__ = [
    "STEMS",
    "AudioStem",
    "FeaturesStem",
    "ImageStem",
    "PretrainedStem",
    "SeriesStem",
    "Stem",
    "SummaryStem",
    "TableStem",
    "TextStem",
]
