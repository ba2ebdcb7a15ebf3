"""Penalties on the values in one structure, written in the array API; `OBJECTIVES` names them all."""

from __future__ import annotations

from radplan.optim.objectives.base import OBJECTIVES, Objective
from radplan.optim.objectives.dvh import MaxDVH, MinDVH
from radplan.optim.objectives.eud import EUD
from radplan.optim.objectives.extremum import Maximum, Minimum
from radplan.optim.objectives.level import DoseAtVolume, MeanOfColdest, MeanOfHottest, VolumeAtDose
from radplan.optim.objectives.mean import Mean
from radplan.optim.objectives.mimicking import DoseMimicking
from radplan.optim.objectives.squared import SquaredDeviation, SquaredOverdosing, SquaredUnderdosing

__all__ = [
    "EUD",
    "OBJECTIVES",
    "DoseAtVolume",
    "DoseMimicking",
    "MaxDVH",
    "Maximum",
    "Mean",
    "MeanOfColdest",
    "MeanOfHottest",
    "MinDVH",
    "Minimum",
    "Objective",
    "SquaredDeviation",
    "SquaredOverdosing",
    "SquaredUnderdosing",
    "VolumeAtDose",
]
