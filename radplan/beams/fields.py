"""Static fields whose leaves fit the target: conformal treatment, and where direct aperture optimisation may start."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from radplan.beams.arc import fitted_leaves, jaw_opening, projected, target_surface
from radplan.beams.beam import beam_angles
from radplan.beams.control_points import ControlPoint, DeliveryPlan, TreatmentField
from radplan.beams.place import target_center
from radplan.errors import InputError
from radplan.geometry.frames import beam_rotation
from radplan.machines.limits import MachineLimits, limits_with
from radplan.machines.mlc import MLC

if TYPE_CHECKING:
    from radplan.machines.photon import PhotonMachine
    from radplan.patient.patient import Patient


def place_fields(
    patient: Patient,
    machine: PhotonMachine,
    mlc: MLC,
    gantry: float | Iterable[float],
    couch: float | Iterable[float] = 0.0,
    collimator: float | Iterable[float] = 0.0,
    isocenter: npt.ArrayLike | None = None,
    margin: float = 5.0,
    targets: str | Sequence[str] | None = None,
    mu: float = 100.0,
    jaws: bool = True,
    name: str = "fields",
    limits: MachineLimits | str | None = None,
) -> DeliveryPlan:
    """Return a plan of static fields, one for each direction, with leaves fitted to the target and equal monitor units.

    Parameters
    ----------
    patient : Patient
        CT and structures.
    machine : PhotonMachine
        Gives the source-axis distance, the name and the energy.
    mlc : MLC
        The collimator; `radplan.machines.library_mlc` knows some.
    gantry, couch, collimator : float or iterable of float
        IEC 61217 angles [degree]; one couch or collimator angle counts for all.
    isocenter : array of shape (3,), optional
        World position [mm]; by default the mean of the targets' voxel centres.
    margin : float
        Growth of the projected target in the isocentre plane [mm], >= 0.
    targets : str or sequence of str, optional
        Structures to fit; by default the patient's `target_names`.
    mu : float
        Monitor units of each field in a fraction, > 0.
    jaws : bool
        Whether the jaws that the linac has follow the opening.
    name : str
        Of the plan.
    limits : MachineLimits or str, optional
        What the linac can do, or its name; those of the first known linac with the collimator when left out.

    Raises
    ------
    UnknownNameError
        When the patient has no structure of a name in `targets`.
    InputError
        When there is nothing to fit, a number is out of its range, or the target is larger than the collimator opens.

    >>> from radplan.machines import library_machine, library_mlc
    >>> from radplan.patient.phantoms import phantom
    >>> linac, agility = library_machine("generic_photon_6mv"), library_mlc("Agility")
    >>> plan = place_fields(phantom("tg119"), linac, agility, gantry=[0, 120, 240])
    >>> len(plan), plan.fields[1].points[0].gantry, plan.mu
    (3, 120.0, 300.0)
    """
    if not (np.isfinite(mu) and mu > 0.0):
        raise InputError(f"mu must be > 0, got {mu!r}")
    if not (np.isfinite(margin) and margin >= 0.0):
        raise InputError(f"margin must be >= 0 mm, got {margin!r}")
    linac = limits_with(mlc, limits)
    centre = np.asarray(target_center(patient, targets) if isocenter is None else isocenter, dtype=np.float64)
    surface = target_surface(patient, patient.target_names if targets is None else targets)
    pitch = max(patient.ct.grid.spacing)
    fields = []
    for number, (around, table, turned) in enumerate(beam_angles(gantry, couch, collimator), start=1):
        rotation = beam_rotation(around, table, turned, patient.patient_position)
        leaves = fitted_leaves(*projected(surface, centre, rotation, machine.sad), mlc, linac, margin, pitch)
        x, y = jaw_opening(leaves, mlc, linac) if jaws else (None, None)
        points = tuple(ControlPoint(meterset, around, turned, table, centre, x, y, leaves) for meterset in (0.0, mu))
        label = f"{name} {around:g}"
        fields.append(
            TreatmentField(
                label, number, points, machine.sad, mlc.boundaries, energy=machine.energy, machine=machine.name
            )
        )
    return DeliveryPlan(name, tuple(fields), patient.fractions, patient.patient_position)
