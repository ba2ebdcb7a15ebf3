"""Patients of a few voxels in OpenKBP's form, whose dose is a known function of their anatomy."""

from __future__ import annotations

import numpy as np

from radplan.geometry.grid import Grid
from radplan.io.openkbp import DOSE_MASK, OpenKBPCase
from radplan.patient import CT, Patient, Structure, Structures


def small_case(seed: int = 0, shape=(12, 20, 20), spacing=(4.0, 4.0, 3.0)) -> OpenKBPCase:
    """Return an elliptic neck with two targets, a cord and a parotid; dose falls with the distance to the target."""
    draw = np.random.default_rng(seed)
    grid = Grid(shape, spacing, (0.0, 0.0, 0.0))
    z, y, x = np.meshgrid(*[np.arange(n) - (n - 1) / 2 for n in shape], indexing="ij")
    body = (y / (0.45 * shape[1])) ** 2 + (x / (0.45 * shape[2])) ** 2 <= 1
    cz, cy, cx = draw.uniform(-2, 2, 3)
    r = np.sqrt(((z - cz) * spacing[2]) ** 2 + ((y - cy) * spacing[1]) ** 2 + ((x - cx) * spacing[0]) ** 2)
    masks = {
        "PTV70": (r < 10) & body,
        "PTV56": (r >= 10) & (r < 15) & body,
        "SpinalCord": (np.hypot(y - 5, x) < 1.5) & body & (r >= 15),
        "LeftParotid": (np.hypot(y, x - 6) < 2) & body & (r >= 15),
    }
    dose = np.where(body, 70.0 * np.exp(-np.maximum(r - 10, 0) / 25), 0.0).astype(np.float32)
    hu = np.where(body, 0.0, -1000.0).astype(np.float32)
    parts = [
        Structure.from_mask(n, grid, m, "target" if n.startswith("PTV") else "oar") for n, m in masks.items() if m.any()
    ]
    parts.append(Structure.from_mask("External", grid, body, "external"))
    parts.append(Structure.from_mask(DOSE_MASK, grid, body, "ignored"))
    patient = Patient(f"small_{seed}", CT(grid, hu), Structures(parts), fractions=35, prescription=70.0)
    return OpenKBPCase(patient, dose)


def halved_case(case: OpenKBPCase) -> OpenKBPCase:
    """Return a case on half the voxels along each axis, as the compact half-resolution files hold it."""
    fine = case.patient.ct.grid
    shape = tuple(n // 2 for n in fine.shape)
    spacing = tuple(2 * s for s in fine.spacing)
    grid = Grid(shape, spacing, tuple(o + s / 2 for o, s in zip(fine.origin, fine.spacing, strict=True)))

    def means(volume):
        return volume.reshape(shape[0], 2, shape[1], 2, shape[2], 2).mean(axis=(1, 3, 5))

    share = means(case.patient.structures[DOSE_MASK].mask().astype(np.float64))
    dose = (means(case.dose.astype(np.float64)) / np.maximum(share, 1e-9)).astype(np.float32)
    parts = []
    for name, structure in case.patient.structures.items():
        part = means(structure.mask().astype(np.float64)).reshape(-1)
        voxels = np.flatnonzero(part)
        parts.append(Structure(name, grid, voxels, part[voxels], structure.role))
    hu = np.where(share > 0, 0.0, -1000.0).astype(np.float32)
    patient = Patient(case.patient.name, CT(grid, hu), Structures(parts), fractions=35, prescription=70.0)
    return OpenKBPCase(patient, dose)
