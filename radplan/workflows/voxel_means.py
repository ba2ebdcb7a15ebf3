"""The dose of a plan of spots as a Monte Carlo scores it: the mean over each voxel, not the value at its centre.

Layers of spots lie as far apart as voxels of a usual grid, and optimisation evens out the dose at voxel centres alone:
between them it can be 1 to 3 % lower.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from radplan.arrays import to_numpy
from radplan.engines import dose_influence
from radplan.engines.base import Engine
from radplan.errors import InputError
from radplan.geometry.grid import Grid
from radplan.geometry.resample import resample_overlap
from radplan.influence import Rows
from radplan.influence.given import on_device
from radplan.influence.saved import SavedModel
from radplan.machines import ParticleMachine
from radplan.plan import Plan, evaluate

Floats = npt.NDArray[np.float64]

LARGEST_STEP = 2.5
"""How far apart a voxel's points lie at most [mm]."""


def points_grid(grid: Grid, step: float = LARGEST_STEP) -> Grid:
    """Return the grid of points whose means are voxel means: every voxel cut into equal parts of at most a step [mm].

    >>> fine = points_grid(Grid((1, 1, 2), (5.0, 3.0, 2.0), (0.0, 0.0, 0.0)))
    >>> fine.shape, fine.spacing, fine.origin
    ((1, 2, 4), (2.5, 1.5, 2.0), (-1.25, -0.75, 0.0))
    """
    parts = [math.ceil(spacing / step - 1e-9) for spacing in grid.spacing]
    fine = [spacing / count for spacing, count in zip(grid.spacing, parts, strict=True)]
    origin = [o - 0.5 * (s - f) for o, s, f in zip(grid.origin, grid.spacing, fine, strict=True)]
    shape = [n * count for n, count in zip(grid.shape, parts[::-1], strict=True)]
    return Grid((shape[0], shape[1], shape[2]), (fine[0], fine[1], fine[2]), (origin[0], origin[1], origin[2]))


def means_on(values: Any, points: Grid, grid: Grid) -> Floats:
    """Return the means over voxels of values at points; NaN is no value, and a voxel without any gets 0.

    >>> coarse = Grid((1, 1, 1), (4.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    >>> means_on(np.asarray([[[1.0, 3.0]]]), points_grid(coarse), coarse).tolist()
    [[[2.0]]]
    """
    array = np.asarray(values, dtype=np.float64)
    known = np.isfinite(array)
    share = np.asarray(resample_overlap(known.astype(np.float64), points, grid))
    total = np.asarray(resample_overlap(np.where(known, array, 0.0), points, grid))
    return np.asarray(np.where(share > 0.0, total / np.maximum(share, 1e-9), 0.0), dtype=np.float64)


def with_voxel_means(plan: Plan, machine: ParticleMachine, engine: Engine | None = None) -> Plan:
    """Return a plan of spots whose physical dose is the mean over every voxel of its grid; nothing else is known of it.

    Parameters
    ----------
    plan : Plan
        Beams of spots, their weights, and the grid.
    machine : ParticleMachine
        What delivers.
    engine : Engine, optional
        How dose is calculated; the usual one of the radiation when left out.
    """
    beams, points = plan.beams, points_grid(plan.model.grid)
    if beams is None:
        raise InputError("voxel means are those of beams of spots; this plan has none")
    model = dose_influence(plan.patient, beams, machine, points, engine, stored=False)
    return of_means(plan, evaluate(model, plan.x, plan.patient, plan.fractions), points)


def of_means(plan: Plan, fine: Plan, points: Grid) -> Plan:
    """Return a plan whose physical dose is the mean over every voxel of that of the same plan at points."""
    model, dose = plan.model, np.full(points.size, np.nan)
    images = fine.model.forward(on_device(fine.x, fine.model))
    dose[to_numpy(fine.model.voxels)] = to_numpy(images["physical_dose"])[0]
    voxels = to_numpy(model.voxels)
    means = means_on(dose.reshape(points.shape), points, model.grid).reshape(-1)[voxels]
    saved = {"physical_dose": means[None, :].astype(np.float32)}
    rows = Rows.of(model.grid, voxels, dtype="float32")
    means_alone = SavedModel(rows, saved, np.asarray(plan.x), model.radiation, None, lambda: model)
    return replace(plan, model=means_alone, given_beams=plan.beams)
