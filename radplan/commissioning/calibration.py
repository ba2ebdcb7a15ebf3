"""What a linac's monitor unit is worth, where the clinic has another reference condition than the machine file."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from radplan.beams.control_points import ControlPoint, TreatmentField
from radplan.engines import ApertureOptions, aperture_model
from radplan.errors import InputError
from radplan.geometry.grid import Grid
from radplan.machines import LowRankKernel, PhotonMachine, Reference
from radplan.patient.ct import CT
from radplan.patient.patient import Patient
from radplan.patient.structures import Structure, Structures

_PHANTOM = 400.0
"""Side of the water cube that reference doses are calculated in [mm]."""


def isocentric(machine: PhotonMachine) -> Reference:
    """Return the machine's reference condition with its point in the isocentre: SSD = SAD - depth, field at SAD.

    >>> from radplan.machines import library_machine
    >>> isocentric(library_machine("generic_photon_6mv")).ssd < 1000.0
    True
    """
    reference = _reference(machine)
    return replace(reference, ssd=machine.sad - reference.depth, field_distance=machine.sad)


def calibrated(machine: PhotonMachine, reference: Reference) -> PhotonMachine:
    """Return the machine with its monitor unit worth what a reference condition says.

    Raises
    ------
    InputError
        When the machine has no monitor units, or a kernel that states its doses otherwise.
    """
    _reference(machine)
    if not isinstance(machine.kernel, LowRankKernel):
        raise InputError(f"machine {machine.name!r} cannot be calibrated: expected a machine of radplan's own format")
    factor = reference.dose / dose_per_mu(machine, reference)
    table, scattered = machine.kernel.table, machine.kernel.scattered
    kernel = replace(machine.kernel, table=table * factor, scattered=None if scattered is None else scattered * factor)
    return replace(machine, kernel=kernel, reference=reference)


def dose_per_mu(machine: PhotonMachine, reference: Reference) -> float:
    """Return what the machine gives at the point of a reference condition in water [Gy/MU], by the aperture engine.

    >>> from radplan.machines import library_machine
    >>> linac = library_machine("generic_photon_6mv")
    >>> round(dose_per_mu(linac, linac.reference), 4)
    0.01
    """
    count = round(_PHANTOM / 10.0) + 1
    grid = Grid((count,) * 3, (10.0,) * 3, (-0.5 * _PHANTOM,) * 3)
    surface = grid.bounds[0][1]
    body = Structure.from_mask("BODY", grid, np.ones(grid.shape, dtype=bool), role="external")
    water = Patient("water", CT(grid, np.zeros(grid.shape, dtype=np.float32)), Structures([body]))
    isocenter = np.asarray([0.0, surface + machine.sad - reference.ssd, 0.0])
    edges = np.asarray([-0.5, 0.5]) * machine.sad / reference.field_distance
    points = tuple(
        ControlPoint(mu, 0.0, 0.0, 0.0, isocenter, jaws_x=reference.field[0] * edges, jaws_y=reference.field[1] * edges)
        for mu in (0.0, 100.0)
    )
    field = TreatmentField("reference", 1, points, machine.sad)
    spot = Grid((1, 1, 1), (1.0,) * 3, (0.0, surface + reference.depth, 0.0))
    model = aperture_model(water, [field], machine, grid=spot, options=ApertureOptions(), voxels=[0], dtype="float64")
    dose = model.forward(np.asarray(model.variables.start))["physical_dose"]
    return float(dose[0, 0]) / 100.0


def _reference(machine: PhotonMachine) -> Reference:
    if machine.reference is None:
        raise InputError(f"machine {machine.name!r} has no monitor units")
    return machine.reference
