"""Fluence of arcs to learn from: optimised so that one opening a row gives it at each control point."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize, nnls

from radplan.ai.arc_case import ArcCase
from radplan.delivery.sequencing.runs import fluence_runs
from radplan.optim import Problem

Floats = npt.NDArray[np.float64]

_PULLS = (0.0, 0.03, 0.1, 0.3, 0.3, 0.5)
"""Rising pull towards what one opening a row can give, as a share of the cost of even fluence."""

THRESHOLD = 0.25
"""Share of a map's maximum from which pixels open."""


def reference_fluence(case: ArcCase, iterations: int = 40) -> Floats:
    r"""Return fluence (control points, v, u) that serves the goals of a case and that apertures can give.

    Free fluence is optimised first. Then rounds of :math:`\min_x f(x) + \rho \|x - P(x_0)\|^2` follow, with P the
    fluence of the apertures that `fluence_runs` reads from the last round's x, and the apertures' monitor units are
    optimised last.

    Parameters
    ----------
    case : ArcCase
        Goals and dose influence.
    iterations : int
        Of each round.
    """
    problem = case.problem
    x = case.weights(np.ones(case.shape))
    scale = float(problem.at(x).value)
    for pull in _PULLS:
        painted = case.weights(aperture_fluence(case, case.fluence(x))) if pull else x
        strength = pull * scale / (case.unit**2 * x.size)
        x = _descended(_pulled(problem, painted, strength), x, iterations)
    return with_best_units(case, case.fluence(x), iterations)


def with_best_units(case: ArcCase, fluence: npt.ArrayLike, iterations: int = 40) -> Floats:
    """Return the fluence (control points, v, u) of the apertures of a fluence, with the monitor units of least cost.

    Parameters
    ----------
    case : ArcCase
        Goals and dose influence.
    fluence : array of shape (control points, v, u)
        From which `fluence_runs` reads the apertures.
    iterations : int
        Most iterations on the monitor units.
    """
    problem = case.problem
    shapes, level = _shapes(case, fluence)

    def by_aperture(mu: Floats) -> tuple[float, Floats]:
        point = problem.at(case.weights(mu[:, None] * shapes))
        whole = np.zeros(shapes.size)
        whole[case.open] = np.asarray(point.gradient) * case.unit
        return float(point.value), (whole.reshape(shapes.shape) * shapes).sum(axis=1)

    mu = _descended(by_aperture, level, iterations)
    return np.asarray(mu[:, None] * shapes).reshape(case.shape)


def with_units_of_dose(case: ArcCase, fluence: npt.ArrayLike, dose: npt.ArrayLike) -> Floats:
    """Return the fluence (control points, v, u) of the apertures of a fluence, with the units that come nearest a dose.

    Least squares, never below 0. The target is to get its prescription, everything else what the dose says, and not
    more than the prescription; the target weighs a hundred times the body, the organs ten times.

    Parameters
    ----------
    case : ArcCase
        Dose influence and prescription.
    fluence : array of shape (control points, v, u)
        From which `fluence_runs` reads the apertures.
    dose : array of shape (voxels,)
        In the Dij's voxels, over the prescription.
    """
    shapes, _ = _shapes(case, fluence)
    columns = []
    for number, shape in enumerate(shapes):
        alone = np.zeros_like(shapes)
        alone[number] = shape
        columns.append(np.asarray(case.dij.forward(case.weights(alone))["physical_dose"])[0] / case.prescription)
    given = np.asarray(dose, dtype=np.float64)
    inside = case.shares[0] / case.shares[0].max()
    wanted = inside + (1.0 - inside) * np.minimum(given, 1.0)
    weight = np.sqrt(1.0 / given.size + 100.0 * case.shares[0] + 10.0 * case.shares[1:].mean(axis=0))
    mu, _ = nnls(np.stack(columns, axis=1) * weight[:, None], wanted * weight)
    return np.asarray(mu[:, None] * shapes).reshape(case.shape)


def _shapes(case: ArcCase, fluence: npt.ArrayLike) -> tuple[Floats, Floats]:
    """Return what each control point opens (control points, pixels), from 0 to 1, and its fluence."""
    shapes = aperture_fluence(case, fluence).reshape(case.arc.control_points, -1)
    level = shapes.max(axis=1)
    return np.divide(shapes, level[:, None], out=np.zeros_like(shapes), where=level[:, None] > 0), level


def aperture_fluence(case: ArcCase, fluence: npt.ArrayLike) -> Floats:
    """Return the fluence (control points, v, u) that one opening a row gives, as `fluence_runs` reads it."""
    maps = np.asarray(fluence, dtype=np.float64)
    edges = (np.arange(case.arc.pixels + 1) - case.arc.pixels / 2) * case.arc.pitch
    ends, mu = fluence_runs(maps, edges, THRESHOLD)
    low, high = (np.nan_to_num(ends[..., side])[..., None] for side in (0, 1))
    covered = np.minimum(high, edges[1:]) - np.maximum(low, edges[:-1])
    opened = np.zeros(int(np.prod(case.shape)))
    opened[case.open] = 1.0
    share = np.clip(covered / case.arc.pitch, 0.0, 1.0) * opened.reshape(case.shape)
    return np.asarray(mu[:, None, None] * share)


def sequencing_loss(case: ArcCase, fluence: npt.ArrayLike) -> float:
    """Return how much of fluence apertures do not give: sum of absolute differences over the sum of fluence."""
    maps = np.asarray(fluence, dtype=np.float64)
    return float(np.abs(maps - aperture_fluence(case, maps)).sum() / max(maps.sum(), 1e-9))


def _pulled(problem: Problem, painted: Floats, strength: float) -> Callable[[Floats], tuple[float, Floats]]:
    def cost(x: Floats) -> tuple[float, Floats]:
        point, away = problem.at(x), x - painted
        return (
            float(point.value) + strength * float(away @ away),
            np.asarray(point.gradient, dtype=np.float64) + 2.0 * strength * away,
        )

    return cost


def _descended(cost: Callable[[Floats], tuple[float, Floats]], start: Floats, iterations: int) -> Floats:
    """Return variables >= 0 of less cost."""
    unit = max(float(start.max()), 1e-9)

    def scaled(z: Any) -> tuple[float, Floats]:
        value, gradient = cost(z * unit)
        return value, gradient * unit

    bounds = [(0.0, None)] * start.size
    options: Any = {"maxiter": iterations}
    result = minimize(scaled, start / unit, jac=True, method="L-BFGS-B", bounds=bounds, options=options)
    return np.asarray(result.x * unit, dtype=np.float64)
