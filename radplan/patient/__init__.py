"""The patient: CT and HU tables, structures and their overlap, built-in phantoms."""

from __future__ import annotations

from radplan.patient.ct import CT, HU_TABLES, HUTable, hu_table
from radplan.patient.patient import Patient, find_external
from radplan.patient.phantoms import PHANTOMS, phantom
from radplan.patient.structures import Structure, Structures, after_overlap, resample_weights

__all__ = [
    "CT",
    "HU_TABLES",
    "PHANTOMS",
    "HUTable",
    "Patient",
    "Structure",
    "Structures",
    "after_overlap",
    "find_external",
    "hu_table",
    "phantom",
    "resample_weights",
]
