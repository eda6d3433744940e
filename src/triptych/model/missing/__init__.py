"""What stands for a modality that a row lacks, before the fusion.  A fill is its own file plus one line here."""

from triptych.model.missing.bank import BankFill
from triptych.model.missing.fill import Fill
from triptych.model.missing.placeholder import PlaceholderFill
from triptych.model.missing.zero import ZeroFill

FILLS: dict[str, type[Fill]] = {
    "bank": BankFill,
    "placeholder": PlaceholderFill,
    "zero": ZeroFill,
}

__all__ = ["FILLS", "BankFill", "Fill", "PlaceholderFill", "ZeroFill"]
