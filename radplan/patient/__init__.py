"""The patient: CT and HU tables, structures and their overlap, built-in phantoms."""

from __future__ import annotations

from radplan.patient.algebra import difference, intersection, ring, symmetric_difference, union
from radplan.patient.ct import CT, HU_TABLES, HUTable, hu_table
from radplan.patient.expressions import evaluate_expression, parse_expression
from radplan.patient.margins import contract, expand
from radplan.patient.patient import DensityOverride, Patient, find_external
from radplan.patient.phantoms import PHANTOMS, phantom
from radplan.patient.structures import Structure, Structures, after_overlap, resample_weights

__all__ = [
    "CT",
    "HU_TABLES",
    "PHANTOMS",
    "DensityOverride",
    "HUTable",
    "Patient",
    "Structure",
    "Structures",
    "after_overlap",
    "contract",
    "difference",
    "evaluate_expression",
    "expand",
    "find_external",
    "hu_table",
    "intersection",
    "parse_expression",
    "phantom",
    "resample_weights",
    "ring",
    "symmetric_difference",
    "union",
]
