"""Every error that Triptych raises on purpose.

TriptychError
├── DataError            a dataset, row or value is not what its schema says
│   ├── DecodeError      a media value cannot be decoded
│   └── LimitError       a value exceeds a safety limit (pixels, samples, bytes)
├── SchemaError          a schema is malformed, or model and data disagree
│   └── UnknownModality  an input that the model has no encoder for
├── ModelError           a model configuration that cannot be built
├── RecipeError          a recipe, option or configuration value is wrong or unknown
├── TrainingError        training cannot go on (non-finite loss, damaged checkpoint)
├── BudgetError          no candidate meets the budget, or a limit cannot be measured
├── BundleError          a bundle is damaged, tampered with or of an unknown version
│   └── ParityError      the runtime disagrees with the network it was exported from
└── MeasureError         a measurement worker failed

Messages say what was expected, what was given and what to do.
"""


class TriptychError(Exception):
    """Base of all errors that Triptych raises on purpose."""


class DataError(TriptychError):
    """A dataset, row or value is not what its schema says."""


class DecodeError(DataError):
    """A media value cannot be decoded."""


class LimitError(DataError):
    """A value exceeds a safety limit."""


class SchemaError(TriptychError):
    """A schema is malformed, or model and data disagree about it."""


class UnknownModality(SchemaError):  # noqa: N818 (the name says what is wrong)
    """An input that the model has no encoder for."""


class ModelError(TriptychError):
    """A model configuration that cannot be built."""


class RecipeError(TriptychError):
    """A recipe, option or configuration value is wrong or unknown."""


class TrainingError(TriptychError):
    """Training cannot go on."""


class BudgetError(TriptychError):
    """No candidate meets the budget, or one of its limits cannot be measured."""


class BundleError(TriptychError):
    """A bundle is damaged, tampered with or of an unknown version."""


class ParityError(BundleError):
    """The runtime disagrees with the network it was exported from."""


class MeasureError(TriptychError):
    """A measurement worker failed."""
