"""Optimisation: objectives, goals, the problem they make, and solvers."""

from radplan.optim.constraints import Constraint
from radplan.optim.goals import Goal
from radplan.optim.objectives import (
    EUD,
    OBJECTIVES,
    DoseAtVolume,
    DoseMimicking,
    MaxDVH,
    Maximum,
    Mean,
    MeanOfColdest,
    MeanOfHottest,
    MinDVH,
    Minimum,
    Objective,
    SquaredDeviation,
    SquaredOverdosing,
    SquaredUnderdosing,
    VolumeAtDose,
)
from radplan.optim.problem import Problem
from radplan.optim.solvers import SOLVERS, Progress, ProjectedLBFGS, ScipyLBFGSB, Solution, Solver, Status

__all__ = [
    "EUD",
    "OBJECTIVES",
    "SOLVERS",
    "Constraint",
    "DoseAtVolume",
    "DoseMimicking",
    "Goal",
    "MaxDVH",
    "Maximum",
    "Mean",
    "MeanOfColdest",
    "MeanOfHottest",
    "MinDVH",
    "Minimum",
    "Objective",
    "Problem",
    "Progress",
    "ProjectedLBFGS",
    "ScipyLBFGSB",
    "Solution",
    "Solver",
    "SquaredDeviation",
    "SquaredOverdosing",
    "SquaredUnderdosing",
    "Status",
    "VolumeAtDose",
]
