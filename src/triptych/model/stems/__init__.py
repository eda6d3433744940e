"""Raw values to tokens, one stem per modality kind; preprocessing is inside, so it exports with the network."""

from triptych.model.stems.audio import AudioStem
from triptych.model.stems.image import ImageStem
from triptych.model.stems.series import SeriesStem
from triptych.model.stems.stem import Stem
from triptych.model.stems.table import TableStem
from triptych.model.stems.text import TextStem

STEMS: dict[str, type[Stem]] = {
    "audio": AudioStem,
    "image": ImageStem,
    "series": SeriesStem,
    "table": TableStem,
    "text": TextStem,
}

__all__ = ["STEMS", "AudioStem", "ImageStem", "SeriesStem", "Stem", "TableStem", "TextStem"]
