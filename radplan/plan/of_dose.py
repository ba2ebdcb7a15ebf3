"""A given dose as a plan, so that everything that judges and draws plans takes it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from radplan.errors import InputError
from radplan.geometry.grid import Grid
from radplan.influence import Dij
from radplan.patient.patient import Patient
from radplan.plan.course import Plan


def plan_of_dose(dose: npt.ArrayLike, grid: Grid, patient: Patient, label: str = "given dose") -> Plan:
    """Return the plan whose physical dose is a given course total.

    It has one variable, at 1, and one fraction: metrics, DVHs, scorecards and figures read it like any plan.

    Parameters
    ----------
    dose : array of shape grid.shape
        Course total [Gy], >= 0.
    grid : Grid
        Where it is given.
    patient : Patient
        Whose structures are judged.
    label : str
        What captions call it.

    Raises
    ------
    InputError
        When the shape does not fit, a value is negative or not finite, or the dose is 0 everywhere.

    >>> from radplan.patient.phantoms import phantom
    >>> patient = phantom("box")
    >>> plan = plan_of_dose(np.full(patient.ct.grid.shape, 2.0), patient.ct.grid, patient)
    >>> plan.metrics(names=["Dmean"])["OuterTarget"]
    {'Dmean': 2.0}
    """
    values = np.asarray(dose, dtype=np.float64)
    if values.shape != grid.shape:
        raise InputError(f"the dose has shape {values.shape}, its grid {grid.shape}")
    if not np.all(np.isfinite(values)) or values.min() < 0.0:
        raise InputError("a dose must be finite and >= 0 everywhere")
    if values.max() == 0.0:
        raise InputError("the dose is 0 everywhere")
    dij = Dij.from_matrices({"physical_dose": values.reshape(-1, 1)}, grid, dtype="float64")
    return Plan(x=np.ones(1), model=dij, patient=patient, fractions=1, normalization=label)
