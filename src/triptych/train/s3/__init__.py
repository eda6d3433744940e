"""S3: specialise, select, sparsify; with the probe that judges it and the controls that it is held against."""

from triptych.train.s3.choice import SHARES, Choice, choose_share
from triptych.train.s3.controls import CONTROLS, Control
from triptych.train.s3.information import activation_information, mutual_information, selectivity
from triptych.train.s3.objective import SELECT, SPECIALISE, Alignment, Views, Weights
from triptych.train.s3.probe import Probe, fit_probe
from triptych.train.s3.s3 import S3, STAGES, activations, align, features

__all__ = [
    "CONTROLS",
    "S3",
    "SELECT",
    "SHARES",
    "SPECIALISE",
    "STAGES",
    "Alignment",
    "Choice",
    "Control",
    "Probe",
    "Views",
    "Weights",
    "activation_information",
    "activations",
    "align",
    "choose_share",
    "features",
    "fit_probe",
    "mutual_information",
    "selectivity",
]
