"""Radiobiology: what a dose does to a cell, as pure functions written in the array API."""

from radplan.biology.lq import bed, dose_of_effect, dose_of_effect_slope, effect, effect_of_dose, eqd2
from radplan.biology.rbe import RBE_MODELS, RadiationQuality, RBEModel, rbe

__all__ = [
    "RBE_MODELS",
    "RBEModel",
    "RadiationQuality",
    "bed",
    "dose_of_effect",
    "dose_of_effect_slope",
    "effect",
    "effect_of_dose",
    "eqd2",
    "rbe",
]
