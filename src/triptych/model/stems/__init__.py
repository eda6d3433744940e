"""Raw values to tokens; preprocessing is inside, so it exports with the network.

A modality kind's usual stem has its name; the others are asked for by `StemConfig.form`.
"""

from triptych.model.stems.audio import AudioStem
from triptych.model.stems.codes import CodesStem
from triptych.model.stems.convolved import ConvolvedStem
from triptych.model.stems.features import FeaturesStem
from triptych.model.stems.graded import GradedStem
from triptych.model.stems.image import ImageStem
from triptych.model.stems.norms import NormsStem
from triptych.model.stems.points import PointsStem
from triptych.model.stems.pretrained import PretrainedStem
from triptych.model.stems.profile import ProfileStem
from triptych.model.stems.series import SeriesStem
from triptych.model.stems.statistics import StatisticsStem
from triptych.model.stems.stem import Stem
from triptych.model.stems.summary import SummaryStem
from triptych.model.stems.table import TableStem
from triptych.model.stems.text import TextStem
from triptych.model.stems.video import VideoStem

STEMS: dict[str, type[Stem]] = {
    "audio": AudioStem,
    "codes": CodesStem,
    "convolved": ConvolvedStem,
    "features": FeaturesStem,
    "graded": GradedStem,
    "image": ImageStem,
    "norms": NormsStem,
    "points": PointsStem,
    "pretrained": PretrainedStem,
    "profile": ProfileStem,
    "series": SeriesStem,
    "statistics": StatisticsStem,
    "summary": SummaryStem,
    "table": TableStem,
    "text": TextStem,
    "video": VideoStem,
}

__all__ = [
    "STEMS",
    "AudioStem",
    "CodesStem",
    "ConvolvedStem",
    "FeaturesStem",
    "GradedStem",
    "ImageStem",
    "NormsStem",
    "PointsStem",
    "PretrainedStem",
    "ProfileStem",
    "SeriesStem",
    "StatisticsStem",
    "Stem",
    "SummaryStem",
    "TableStem",
    "TextStem",
    "VideoStem",
]
