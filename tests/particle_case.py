"""A small proton machine made of formulas, and a water patient to shoot at."""

from __future__ import annotations

import numpy as np

from radplan.geometry.grid import Grid
from radplan.machines import EnergyLayer, InitialFocus, ParticleMachine
from radplan.patient.ct import CT
from radplan.patient.patient import Patient
from radplan.patient.structures import Structure, Structures

GRID = Grid((16, 40, 16), (3.0, 3.0, 3.0), (-22.5, -58.5, -22.5))


def layer(energy: float, biology: bool = False) -> EnergyLayer:
    """Return a Bragg curve of the right shape: a plateau, a Gaussian peak, a steep end."""
    peak = 0.022 * energy**1.77
    depth = np.unique(np.concatenate([np.arange(0.0, peak + 12.0, 1.5), peak + np.arange(-6.0, 6.0, 0.5)]))
    dose = 6.0 + 20.0 * np.exp(-0.5 * ((depth - peak) / 2.0) ** 2)
    dose = np.where(depth > peak, (dose - 6.0), dose)
    let = 1.0 + 8.0 / (1.0 + np.exp(-(depth - peak) / 1.5))
    tables = {}
    if biology:
        tables = {"alpha": np.stack([0.1 + 0.05 * let, 0.5 + 0.05 * let]), "beta": np.full((2, depth.size), 0.05)}
    return EnergyLayer(
        energy,
        depth,
        dose,
        peak=peak,
        range80=peak + 2.0,
        focus=InitialFocus(np.asarray([[0.0, 20000.0]]), np.asarray([[3.0, 5.0]]), np.asarray([9.4])),
        let=let,
        sigma=0.022 * depth,
        sigma1=0.020 * depth,
        sigma2=4.0 + 0.05 * depth,
        weight=np.minimum(0.1, 0.001 * depth),
        sigma_x=0.02 * depth,
        sigma_y=0.03 * depth,
        **tables,
    )


def machine(biology: bool = False, radiation: str = "protons") -> ParticleMachine:
    """Return energies from 45 to 115 MeV in steps of 1.4."""
    layers = tuple(layer(energy, biology) for energy in np.linspace(45.0, 115.0, 51))
    tissues = {"tissue_alpha_x": np.asarray([0.1, 0.5]), "tissue_beta_x": np.full(2, 0.05)} if biology else {}
    return ParticleMachine("small", radiation, 10000.0, 500.0, layers, **tissues)


def patient(alpha_x: float = 0.1) -> Patient:
    """Return a water block with a target in its middle and air in front of it."""
    body, target = np.zeros(GRID.shape, dtype=bool), np.zeros(GRID.shape, dtype=bool)
    body[1:-1, 2:-1, 1:-1] = True
    target[6:10, 16:22, 6:10] = True
    structures = Structures(
        [
            Structure.from_mask("PTV", GRID, target, role="target", alpha_x=alpha_x, beta_x=0.05),
            Structure.from_mask("BODY", GRID, body, role="external"),
        ]
    )
    return Patient("block", CT(GRID, np.where(body, 0.0, -1000.0)), structures, (), fractions=30, prescription=60.0)
