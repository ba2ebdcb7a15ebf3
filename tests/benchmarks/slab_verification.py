"""A static field through a slab of lung, verified by pyRadMC.

``python -m tests.benchmarks.slab_verification [HISTORIES]``

Water with lung of 0.25 from 5 to 15 cm, a field that leaves bound to about 5 x 5 cm, written as RTPLAN and read again.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

import radplan as rp
from radplan.beams import place_fields
from radplan.engines import ApertureOptions
from radplan.geometry.grid import Grid
from radplan.machines import library_machine
from radplan.machines.mlc import library_mlc
from radplan.patient import CT, Patient, Structure, Structures
from radplan.workflows.verification import Verification, judged

LUNG = -757.0
"""Hounsfield units of relative electron density 0.25 in the table that is taken where none is given."""


def slabs() -> Patient:
    """Return water of 30 cm with lung from 5 to 15 cm, and a target cube of 4 cm in the middle of it."""
    grid = Grid((60, 60, 60), (5.0, 5.0, 5.0), (-147.5, 2.5, -147.5))
    z, y, x = np.meshgrid(grid.axes[2], grid.axes[1], grid.axes[0], indexing="ij")
    lung = (y > 50.0) & (y < 150.0)
    target = (np.abs(x) < 20.0) & (np.abs(z) < 20.0) & (np.abs(y - 100.0) < 20.0)
    structures = [
        Structure.from_mask("BODY", grid, np.ones(grid.shape, dtype=bool), role="external"),
        Structure.from_mask("LUNG", grid, lung),
        Structure.from_mask("PTV", grid, target, role="target"),
    ]
    return Patient("slabs", CT(grid, np.where(lung, LUNG, 0.0).astype(np.float32)), Structures(structures))


def told(name: str, found: Verification, patient: Patient) -> None:
    """Print gamma, the means of both doses, and the dose along the axis."""
    rows = found.comparison.rows
    means = ", ".join(
        f"{row.structure} {100 * (row.ours['Dmean'] / row.reference['Dmean'] - 1):+.1f} %" for row in rows
    )
    gamma = ", ".join(f"{where} {share:.1f} %" for where, share in found.passing.items())
    print(f"{name}: gamma {gamma}; mean over Monte Carlo {means}")
    grid = found.plan.model.grid
    middle = (np.abs(grid.axes[2]) < 11.0)[:, None] & (np.abs(grid.axes[0]) < 11.0)
    ours, theirs = (
        np.asarray([plane[middle].mean() for plane in np.moveaxis(dose, 1, 0)])
        for dose in (found.plan["physical_dose"], found.simulated.dose * found.plan.fractions)
    )
    for low, high in ((20.0, 50.0), (50.0, 80.0), (80.0, 120.0), (120.0, 150.0), (150.0, 160.0), (160.0, 290.0)):
        part = (grid.axes[1] > low) & (grid.axes[1] < high)
        print(
            f"  {low:.0f} to {high:.0f} mm, inner 2 x 2 cm: {100 * (ours[part].sum() / theirs[part].sum() - 1):+.1f} %"
        )


def main(histories: int) -> None:
    """Print the verification with density scaling, as lungs are contoured, and without."""
    patient, machine = slabs(), library_machine("generic_photon_6mv")
    print(f"density of lung {float(np.asarray(patient.density()).min()):.3f}")
    plan = place_fields(patient, machine, library_mlc("Millennium 120"), gantry=0.0, mu=200.0)
    plan = replace(plan, fractions=1)
    with tempfile.TemporaryDirectory() as place:
        path = rp.export_rtplan(plan, patient, Path(place, "RP.dcm"))
        found = rp.verify(path, patient, histories=histories, machine=machine, grid=5.0, fractions=1)
        plain = rp.recalculate(
            path, patient, machine, grid=5.0, fractions=1, options=ApertureOptions(density_scaling=False)
        )
    simulated = found.simulated
    print(
        f"{simulated.histories:.2g} photons, {simulated.seconds:.0f} s of processor time, error "
        f"{simulated.statistical_percent:.2f} % of the maximum"
    )
    told("with density scaling", found, patient)
    told("without", judged(plain.plan, simulated), patient)


if __name__ == "__main__":
    main(int(float(sys.argv[1])) if len(sys.argv) > 1 else 10_000_000)
