"""A plan as matRad's variables: ``ct``, ``cst``, ``pln`` and ``resultGUI`` in a .mat file that matRad opens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from radplan.errors import InputError
from radplan.geometry.resample import resample_linear
from radplan.io.staging import staged_file
from radplan.optim.objectives import (
    EUD,
    MaxDVH,
    Mean,
    MinDVH,
    Objective,
    SquaredDeviation,
    SquaredOverdosing,
    SquaredUnderdosing,
)
from radplan.patient.structures import Structure
from radplan.plan import Plan

NAMES = {
    "physical_dose": "physicalDose", "rbe_x_dose": "RBExDose", "let": "LET", "effect": "effect", "rbe": "RBE",
    "bed": "BED", "let_dose": "letDose", "alpha_dose": "alphaDose", "sqrt_beta_dose": "SqrtBetaDose",
}  # fmt: skip
"""Quantity -> field of ``resultGUI``; others keep their name."""

_TYPES = {"target": "TARGET", "oar": "OAR", "external": "EXTERNAL", "ignored": "IGNORED"}


def write_results(plan: Plan, path: str | Path) -> Path:
    """Write a plan as a MATLAB v5 file: matRad's ``ct``, ``cst``, ``pln`` and ``resultGUI``.

    Cubes of ``resultGUI`` are those that the plan tells of, per fraction, on the CT's voxels (trilinear, 0 outside the
    dose grid), indexed ``[y, x, z]``; ``w`` are the weights. Goals that matRad has no function for are left out of
    ``cst``.

    Parameters
    ----------
    plan : Plan
        What to write.
    path : path-like
        The file, which ends in ``.mat``; replaced only when the new one is whole.

    Raises
    ------
    InputError
        When the name does not end in ``.mat``.
    FileError
        When the file cannot be written.
    """
    from scipy.io import savemat

    path = Path(path)
    if path.suffix.lower() != ".mat":
        raise InputError(f"matRad's files end in .mat, got {path.name}")
    variables = {"ct": _ct(plan), "cst": _cst(plan), "pln": _pln(plan), "resultGUI": _results(plan)}
    with staged_file(path) as partial:
        savemat(str(partial), variables, appendmat=False, do_compression=True, long_field_names=True)
    return path


def matlab_cube(volume: NDArray[Any]) -> NDArray[Any]:
    """Return a volume ``[z, y, x]`` as MATLAB indexes it, ``[y, x, z]``.

    >>> matlab_cube(np.zeros((2, 3, 4))).shape
    (3, 4, 2)
    """
    return np.ascontiguousarray(np.transpose(volume, (1, 2, 0)))


def _ct(plan: Plan) -> dict[str, Any]:
    ct = plan.patient.ct
    x, y, z = ct.grid.axes
    nz, ny, nx = ct.grid.shape
    return {
        "cubeHU": _cell([matlab_cube(np.asarray(ct.hu, dtype=np.float64))]),
        "resolution": dict(zip("xyz", ct.grid.spacing, strict=True)),
        "cubeDim": np.asarray([[ny, nx, nz]], dtype=np.float64),
        "numOfCtScen": 1.0,
        "x": x[None, :],
        "y": y[None, :],
        "z": z[None, :],
    }


def _cst(plan: Plan) -> NDArray[Any]:
    rows = np.empty((len(plan.patient.structures), 6), dtype=object)
    for k, structure in enumerate(plan.patient.structures.values()):
        goals = [goal for goal in plan.goals if goal.structure == structure.name]
        functions = [written for goal in goals if (written := _function(goal.objective, goal.weight)) is not None]
        rows[k] = [float(k), structure.name, _TYPES[structure.role], None, _properties(structure), None]
        rows[k, 3] = _cell([_voxels(structure)])
        rows[k, 5] = _cell(functions) if functions else np.zeros((0, 0))
    return rows


def _voxels(structure: Structure) -> NDArray[np.float64]:
    """Return voxels that belong by half or more, counted from 1 in MATLAB's order (n, 1)."""
    inside = slice(None) if structure.fraction is None else structure.fraction >= 0.5
    z, y, x = np.unravel_index(np.asarray(structure.voxels)[inside], structure.grid.shape)
    _, ny, nx = structure.grid.shape
    return np.sort(y + ny * (x + nx * z)).astype(np.float64)[:, None] + 1.0


def _properties(structure: Structure) -> dict[str, Any]:
    known: dict[str, Any] = {
        "Priority": float(structure.effective_priority),
        "alphaX": float(structure.alpha_x),
        "betaX": float(structure.beta_x),
        "Visible": 1.0,
        "TissueClass": 1.0,
    }
    if structure.color is not None:
        known["visibleColor"] = np.asarray([structure.color])
    return known


def _function(objective: Objective, weight: float) -> dict[str, Any] | None:
    """Return matRad's function of an objective, None where it has none."""
    known: tuple[str, list[float]] | None = None
    if isinstance(objective, SquaredDeviation | SquaredOverdosing | SquaredUnderdosing):
        known = type(objective).__name__, [objective.reference]
    elif isinstance(objective, MaxDVH | MinDVH):
        known = type(objective).__name__, [objective.reference, 100.0 * objective.volume]
    elif isinstance(objective, Mean) and objective.form in ("linear", "quadratic"):
        known = "MeanDose", [objective.reference, 1.0 if objective.form == "linear" else 2.0]
    elif isinstance(objective, EUD) and objective.form == "deviation":
        known = "EUD", [objective.reference, objective.exponent]
    if known is None or not all(isinstance(value, int | float) for value in known[1]):
        return None
    return {
        "className": f"DoseObjectives.matRad_{known[0]}",
        "parameters": _cell([float(value) for value in known[1]]),
        "penalty": weight,
        "robustness": "none",
    }


def _pln(plan: Plan) -> dict[str, Any]:
    model = plan.model
    known: dict[str, Any] = {"numOfFractions": float(plan.fractions), "radiationMode": model.radiation}
    known["propDoseCalc"] = {"doseGrid": {"resolution": dict(zip("xyz", model.grid.spacing, strict=True))}}
    if plan.beams is not None:
        known["propStf"] = {
            "gantryAngles": np.asarray([[beam.gantry for beam in plan.beams]]),
            "couchAngles": np.asarray([[beam.couch for beam in plan.beams]]),
            "bixelWidth": float(plan.beams[0].bixel_width),
            "isoCenter": np.asarray([beam.isocenter for beam in plan.beams]),
            "numOfBeams": float(len(plan.beams)),
        }
    return known


def _results(plan: Plan) -> dict[str, Any]:
    to, grid = plan.patient.ct.grid, plan.model.grid
    found: dict[str, Any] = {"w": np.asarray(plan.x, dtype=np.float64)[:, None]}
    for quantity in plan.told():
        share = 1.0 / plan.fractions if plan.is_additive(quantity) else 1.0
        cube = np.asarray(resample_linear(np.asarray(plan[quantity], dtype=np.float64), grid, to))
        found[NAMES.get(quantity.name, quantity.name)] = matlab_cube(share * cube)
    return found


def _cell(items: list[Any]) -> NDArray[Any]:
    cell = np.empty((1, len(items)), dtype=object)
    for k, item in enumerate(items):
        cell[0, k] = item
    return cell
