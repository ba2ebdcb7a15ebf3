"""The stopping rule in terms of the plan: what is read, when a search ends by it, and what the plan then is."""

from __future__ import annotations

import numpy as np
import pytest

from radplan.arrays import to_numpy
from radplan.errors import InputError
from radplan.geometry import Grid
from radplan.influence import Dij
from radplan.optim import Goal, Problem
from radplan.optim.objectives import DoseAtVolume, SquaredDeviation, SquaredOverdosing
from radplan.optim.settling import Settling, dose_volume_points
from radplan.optim.solvers import ProjectedLBFGS, Status

ROWS, COLUMNS = 120, 40
VOLUMES = (0.02, 0.05, *np.arange(0.1, 0.95, 0.1), 0.95, 0.98)


def reachable(device="numpy"):
    """Doses that some weights give exactly, by columns of widely different size: the cost falls on and on."""
    rng = np.random.default_rng(3)
    matrix = rng.random((ROWS, COLUMNS)) @ np.diag(10.0 ** -np.linspace(0.0, 2.0, COLUMNS)) @ rng.random((COLUMNS,) * 2)
    dose = matrix @ rng.uniform(0.5, 1.5, COLUMNS)
    grid = Grid((1, 1, ROWS), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    dij = Dij.from_matrices({"physical_dose": matrix / dose[:, None]}, grid, dtype="float64", device=device)
    half = np.arange(ROWS // 2)
    members = {"low": (half, None), "high": (half + ROWS // 2, None)}
    goals = [Goal("low", SquaredDeviation(1.0)), Goal("high", SquaredDeviation(1.0)), Goal("low", SquaredOverdosing(2))]
    return Problem(dij, goals, weights=members)


def test_points_are_the_metrics_of_every_structure_once(xp_device):
    problem = reachable(xp_device.name)
    x = problem.start * xp_device.asarray(np.linspace(0.5, 1.5, COLUMNS))
    point = problem.at(x)
    found = to_numpy(dose_volume_points(problem.terms, point.evaluation))
    dose = to_numpy(point.values_of("physical_dose"))[0]
    weights = np.full(ROWS // 2, 2.0 / ROWS)
    metrics = [float(DoseAtVolume(volume).measured(half, weights)) for half in np.split(dose, 2) for volume in VOLUMES]
    assert found.shape == (26,)
    np.testing.assert_allclose(found, np.asarray(metrics) / max(metrics), atol=0.01)
    assert found.max() == 1.0


def test_a_plan_that_no_longer_changes_ends_the_search(xp_device):
    problem = reachable(xp_device.name)
    by_plan = ProjectedLBFGS().solve(problem, 10.0 * problem.start)
    by_cost = ProjectedLBFGS(plan_change=0.0).solve(reachable(), 10.0 * reachable().start)
    assert by_plan.status is Status.CONVERGED
    assert by_plan.reason == "no dose-volume point of a goal moves by more than 0.1 % of the largest in 10 iterations"
    assert by_plan.iterations < 0.5 * by_cost.iterations
    points = to_numpy(dose_volume_points(problem.terms, problem.at(by_plan.x).evaluation))
    np.testing.assert_allclose(points, 1.0, atol=0.01)


def test_a_plan_that_changes_slowly_but_steadily_goes_on():
    """The cost falls by a thousandth per iteration all along, while no dose moves by more than that allows."""
    solver, still = ProjectedLBFGS(), Settling(0.001, np.ones(1), quiet=5)
    history = list(0.999 ** np.arange(40.0))
    assert solver._converged(history, 1.0, still) == ""
    assert solver._converged(list(0.99995 ** np.arange(40.0)), 1.0, still).startswith("no dose-volume point")
    assert solver._converged(history, 1e6, still).startswith("no dose-volume point")


def test_the_reason_names_the_cost_where_that_settles_first():
    problem = reachable()
    solution = ProjectedLBFGS(tolerance=0.5, plan_change=1e-6).solve(problem)
    assert solution.status is Status.CONVERGED
    assert solution.reason == "the cost falls by less than 0.5 of it per iteration"
    assert ProjectedLBFGS(max_iterations=3).solve(problem).reason == ""


@pytest.mark.parametrize("change", [-0.1, 1.0, float("nan")])
def test_a_change_is_a_share(change):
    with pytest.raises(InputError, match=r"plan_change must lie in \[0, 1\)"):
        ProjectedLBFGS(plan_change=change)
