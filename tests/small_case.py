"""A patient of 8 x 9 x 10 voxels and a dose influence of six weights and two beams."""

from __future__ import annotations

import numpy as np

from radplan.beams.beam import Beams
from radplan.geometry.grid import Grid
from radplan.influence import Dij
from radplan.optim.goals import Goal
from radplan.optim.objectives import SquaredDeviation, SquaredOverdosing
from radplan.patient.ct import CT
from radplan.patient.patient import Patient
from radplan.patient.structures import Structure, Structures

GRID = Grid((8, 9, 10), (5.0, 5.0, 4.0), (-22.5, -20.0, -14.0))


def patient(prescription: float | None = 50.0, goals: bool = True) -> Patient:
    """A water block with air around it, a target in the middle and a cord behind it."""
    body = np.zeros(GRID.shape, dtype=bool)
    body[1:-1, 1:-1, 1:-1] = True
    target = np.zeros_like(body)
    target[3:5, 3:5, 3:7] = True
    cord = np.zeros_like(body)
    cord[2:6, 6:7, 4:6] = True
    structures = Structures(
        [
            Structure.from_mask("PTV", GRID, target, role="target"),
            Structure.from_mask("Cord", GRID, cord, role="oar"),
            Structure.from_mask("BODY", GRID, body, role="external"),
        ]
    )
    wishes = (Goal("PTV", SquaredDeviation(50.0), weight=100.0), Goal("Cord", SquaredOverdosing(20.0), weight=10.0))
    ct = CT(GRID, np.where(body, 0.0, -1000.0))
    return Patient("block", ct, structures, wishes if goals else (), fractions=25, prescription=prescription)


def beams() -> Beams:
    """Two beams of three bixels: from the front and from the patient's left."""
    rays = [[[-5.0, 0.0], [0.0, 0.0], [5.0, 0.0]]] * 2
    return Beams.from_rays(
        rays, gantry=[0.0, 90.0], isocenter=(0.0, 0.0, 0.0), sad=1000.0, bixel_width=5.0, machine="generic_photon_6mv"
    )


def dij(device: str = "numpy") -> Dij:
    """Doses that fall off smoothly from three lines per beam, with a LET that differs between beams."""
    case = patient()
    voxels = case.body_voxels(GRID)
    x, y, _ = GRID.points(voxels).T
    lines = [x + 5.0, x, x - 5.0, y + 5.0, y, y - 5.0]
    dose = np.stack([0.2 * np.exp(-((line / 6.0) ** 2)) + 0.01 for line in lines], axis=1)
    let = dose * np.asarray([2.0, 2.0, 2.0, 4.0, 4.0, 4.0])
    parameters = {**case.voxel_parameters(GRID, voxels), "rbe": np.ones((1, voxels.size))}
    return Dij.from_matrices(
        {"physical_dose": dose, "let_dose": let},
        GRID,
        voxels,
        voxel_parameters=parameters,
        beam_index=np.repeat([0, 1], 3),
        machine="generic_photon_6mv",
        device=device,
    )
