"""Supports: couch top, mattress and mask as the CT shows them outside the external contour."""

from __future__ import annotations

import numpy as np

from radplan.patient.patient import Patient
from radplan.patient.structures import Structure

SUPPORTS_ABOVE = -950.0
"""Hounsfield unit above which something outside the external contour is a support, not air and noise."""


def with_supports(patient: Patient, above: float = SUPPORTS_ABOVE) -> tuple[Patient, float]:
    """Return the patient with what the CT shows outside the external contour in the beam's way, and its water volume.

    Each voxel above the threshold [HU] counts with its density, up to that of water; the volume is that of water of
    the same electrons [mm3]. Voxels whose density is given (`Patient.overrides`: a couch, bolus) keep it. No dose is
    calculated in supports.
    """
    grid, outline = patient.ct.grid, patient.external
    outside = patient.ct.hu.reshape(-1) > above
    for known in (outline, *(override.structure for override in patient.overrides)):
        outside[known.voxels] = False
    voxels = np.flatnonzero(outside)
    if voxels.size == 0:
        return patient, 0.0
    hu = np.minimum(patient.ct.hu.reshape(-1)[voxels], 0.0)
    share = np.clip(patient.hu_table.relative_density(hu), 1e-6, 1.0)
    # Why: a voxel filled in part with water is a voxel of that density.
    supports = Structure("supports", grid, voxels, np.asarray(share, dtype=np.float64), "ignored")
    return patient.with_density(supports, 1.0), supports.volume
