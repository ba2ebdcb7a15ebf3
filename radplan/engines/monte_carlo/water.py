"""The patient as Monte Carlo programs are given it: water of the density that the CT says, air about it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from radplan.geometry.grid import Grid
from radplan.geometry.resample import resample_overlap
from radplan.patient.patient import Patient

Floats = npt.NDArray[np.float64]

AIR = 1e-3
"""Density outside the patient [g/cm3]."""


def water_density(patient: Patient, grid: Grid) -> Floats:
    """Return the density (nz, ny, nx) of water in every voxel of a grid, means over voxels, `AIR` at least [g/cm3]."""
    volume = np.asarray(patient.density(), dtype=np.float64)
    return np.maximum(np.asarray(resample_overlap(volume, patient.ct.grid, grid), dtype=np.float64), AIR)


def inside_patient(values: Floats, density: Floats) -> Floats:
    """Return dose or its error where there is more than air, 0 elsewhere.

    A voxel of air has next to no mass, and what little is scored there says nothing of the patient.
    """
    return np.where(density > AIR, values, 0.0)
