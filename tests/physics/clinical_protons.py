"""The phantom of the Danish Centre for Particle Therapy's LET benchmark, and depth profiles of plans in it."""

from __future__ import annotations

import numpy as np

from radplan.beams.scanned import ScannedPlan
from radplan.engines.particle.pencil_beam import ParticlePencilBeam
from radplan.geometry.grid import Grid
from radplan.machines import ParticleMachine
from radplan.machines.particle import distal_depth
from radplan.patient.ct import CT
from radplan.patient.patient import Patient
from radplan.patient.structures import Structure, Structures
from radplan.recalc import recalculate_ions

SOLID_WATER = 1.0127
"""Relative stopping power of the solid water: fitted to the distal edge of plan02, one number for all plans."""
PMMA = 1.16
IN_PMMA = (PMMA / 1.19) / (SOLID_WATER / 1.03)
"""Dose in PMMA over dose in solid water of the same fluence: relative stopping powers by densities."""
HALF = 102.5


def phantom(plate: tuple[float, float]) -> Patient:
    """Return 30 x 20.5 x 30 cm of solid water with a plate of PMMA between two y [mm]."""
    grid = Grid((30, 410, 30), (10.0, 0.5, 10.0), (-145.0, -102.25, -145.0))
    body = Structure.from_mask("BODY", grid, np.ones(grid.shape, dtype=bool), role="external")
    y = grid.points()[:, 1].reshape(grid.shape)
    slab = Structure.from_mask("PMMA", grid, (y > plate[0]) & (y < plate[1]))
    water = Patient("slabs", CT(grid, np.zeros(grid.shape, dtype=np.float32)), Structures([body, slab]))
    return water.with_density(body, SOLID_WATER).with_density(slab, PMMA)


def profiles(plan: ScannedPlan, machine: ParticleMachine, plate: tuple[float, float]) -> dict[str, np.ndarray]:
    """Return dose [Gy] and LET [keV/um] in depth, over 2 x 2 cm in bins of 1 mm.

    ``depth`` is from the isocentre [mm]; ``dose`` is in the medium. ``let`` is LETd of all protons,
    ``primary_let`` LETd and ``track_let`` LETt of primaries, ``track_let_protons`` LETt of all protons.
    """
    grid = Grid((10, 205, 10), (2.0, 1.0, 2.0), (-9.0, -102.0, -9.0))
    engine = ParticlePencilBeam(lateral="accurate", lateral_cutoff=0.999, let_details=True)
    images = recalculate_ions(plan, phantom(plate), machine, grid, engine=engine).plan

    def mean(name: str) -> np.ndarray:
        return np.nan_to_num(images[name]).mean(axis=(0, 2))

    dose, primary = mean("physical_dose"), mean("primary_dose")
    y = grid.axes[1]
    return {
        "depth": y - float(plan.fields[0].isocenter[1]),
        "dose": dose * np.where((y > plate[0]) & (y < plate[1]), IN_PMMA, 1.0),
        "let": mean("let_dose") / np.maximum(dose, 1e-12),
        "primary_let": mean("primary_let_dose") / np.maximum(primary, 1e-12),
        "track_let": primary / np.maximum(0.1602177 * mean("primary_fluence"), 1e-12),
        "track_let_protons": mean("proton_dose") / np.maximum(0.1602177 * mean("proton_fluence"), 1e-12),
    }


def edges(depth: np.ndarray, dose: np.ndarray) -> tuple[float, float]:
    """Return the depths of the distal 80 and 20 % [mm]."""
    return distal_depth(depth, dose, 0.8), distal_depth(depth, dose, 0.2)


def shape_error(ours: dict[str, np.ndarray], depth: np.ndarray, dose: np.ndarray) -> float:
    """Return the largest difference of two curves of maximum 1 from 10 mm to 95 % of R80 below the surface."""
    surface = ours["depth"][0] - 0.5
    r80 = edges(depth, dose)[0]
    inside = (depth >= surface + 10.0) & (depth <= surface + 0.95 * (r80 - surface))
    found = np.interp(depth, ours["depth"], ours["dose"]) / ours["dose"].max()
    return float(np.abs(found - dose / dose.max())[inside].max())
