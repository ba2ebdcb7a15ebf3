"""Doses of several courses of one patient, summed: as they are, or as what they do in fractions of 2 Gy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from radplan.biology.lq import eqd2
from radplan.errors import InputError, UnknownNameError
from radplan.geometry.grid import Grid
from radplan.geometry.resample import resample_linear
from radplan.plan.course import Plan

Floats = npt.NDArray[np.float64]
Method = Literal["linear_quadratic", "simple"]


def sum_eqd2(
    plans: Sequence[Plan],
    alpha_beta: float | Mapping[str, float] | None = None,
    method: Method = "linear_quadratic",
    grid: Grid | None = None,
) -> Floats:
    r"""Return the sum of the doses of several courses, in fractions of 2 Gy, (nz, ny, nx) [Gy].

    With a course's dose D in n fractions

    .. math:: EQD2 = \sum D \frac{D / n + \alpha/\beta}{2 + \alpha/\beta},

    without recovery between the courses. Each plan gives the dose that it is prescribed in: ions the RBE-weighted one.

    Parameters
    ----------
    plans : sequence of Plan
        Of one patient in one frame of reference; doses are resampled to one grid and not registered to each other.
    alpha_beta : float or mapping of str to float, optional
        alpha/beta [Gy] of all tissue, or of structures of the first plan's patient, later ones over earlier ones, the
        rest as when left out: of the tissue that the patient's structures state.
    method : "linear_quadratic" or "simple"
        The sum above, or that of the doses as they are.
    grid : Grid, optional
        Where the sum is wanted; the first plan's grid otherwise.

    Raises
    ------
    InputError
        When there is no plan, or an alpha/beta is not > 0.
    UnknownNameError
        When the method or a structure is not known.

    Source: Withers, Thames & Peters, Int. J. Radiat. Oncol. Biol. Phys. 9 (1983) 1611.

    >>> from radplan import Dij, evaluate, load_patient
    >>> box = load_patient("box")
    >>> dij = Dij.from_matrices({"physical_dose": np.full((box.ct.grid.size, 1), 1.0)}, box.ct.grid)
    >>> first, boost = evaluate(dij, [2.0], box, fractions=25), evaluate(dij, [5.0], box, fractions=3)
    >>> round(float(sum_eqd2([first, boost], alpha_beta=3.0).max()), 1)  # 50 + 15 (5 + 3) / (2 + 3)
    74.0
    """
    if not plans:
        raise InputError("there is no plan to sum")
    if method not in get_args(Method):
        raise UnknownNameError("method", str(method), get_args(Method))
    to = plans[0].model.grid if grid is None else grid
    ratio = _ratios(plans[0], alpha_beta, to) if method == "linear_quadratic" else None
    total = np.zeros(to.shape)
    for plan in plans:
        course = np.nan_to_num(np.maximum(np.asarray(plan[plan.prescribed], dtype=np.float64), 0.0))
        dose = np.asarray(resample_linear(course, plan.model.grid, to))
        total += dose if ratio is None else eqd2(dose / plan.fractions, ratio, plan.fractions)
    return total


def _ratios(plan: Plan, given: float | Mapping[str, float] | None, grid: Grid) -> Floats:
    """Return alpha/beta of every voxel of a grid, (nz, ny, nx) [Gy]."""
    if isinstance(given, int | float):
        ratio = np.full(grid.size, float(given))
    else:
        tissue = plan.patient.voxel_parameters(grid, np.arange(grid.size))
        ratio = tissue["alpha_x"][0] / np.maximum(tissue["beta_x"][0], 1e-12)
        for name, value in (given or {}).items():
            if name not in plan.patient.structures:
                raise UnknownNameError("structure with an alpha/beta", name, plan.patient.structures)
            ratio[plan.patient.structure_weights(name, grid)[0]] = value
    if not np.all(ratio > 0.0):
        raise InputError(f"alpha/beta must be > 0 Gy everywhere, the least is {ratio.min():g}: give alpha_beta=")
    return ratio.reshape(grid.shape)
