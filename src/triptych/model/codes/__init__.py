"""Vectors as discrete codes: a codebook, codebooks of what is left over, and how both learn."""

from triptych.model.codes.codebook import Codebook
from triptych.model.codes.learn import learn_codes
from triptych.model.codes.residual import ResidualCodebooks

CODES: dict[str, type[Codebook] | type[ResidualCodebooks]] = {"codebook": Codebook, "residual": ResidualCodebooks}

__all__ = ["CODES", "Codebook", "ResidualCodebooks", "learn_codes"]
