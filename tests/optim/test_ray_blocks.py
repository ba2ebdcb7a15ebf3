"""Second derivatives within groups of variables: against finite differences, and what they do to a search."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import scipy.optimize

from radplan.arrays import to_numpy
from radplan.errors import InputError
from radplan.geometry import Grid
from radplan.influence import Dij, Variables
from radplan.optim import OBJECTIVES, Constraint, Goal, Problem
from radplan.optim.augmented import AugmentedProblem, Hold
from radplan.optim.objectives import DoseAtVolume, Mean, SquaredDeviation, SquaredOverdosing, SquaredUnderdosing
from radplan.optim.solvers import ProjectedLBFGS, Status

RAYS, ENERGIES, ROWS = 12, 10, 300


def stacked_peaks(rng):
    """Rays of overlapping depth doses: neighbouring energies are nearly the same column."""
    depth = np.arange(30.0)
    peaks = np.exp(-0.5 * ((depth[:, None] - np.linspace(6.0, 24.0, ENERGIES)[None, :]) / 4.0) ** 2)
    lateral = np.exp(-0.5 * (np.subtract.outer(np.arange(10.0), np.linspace(0.0, 9.0, RAYS)) / 0.8) ** 2)
    matrix = np.einsum("ij,kl->ikjl", lateral, peaks).reshape(ROWS, RAYS * ENERGIES)
    return np.where(matrix > 1e-4, matrix, 0.0) * rng.uniform(0.9, 1.1, matrix.shape)


def model_of(matrix, images=("physical_dose",), **variables):
    grid = Grid((1, 1, ROWS), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    dij = Dij.from_matrices({name: matrix * (n + 1.0) for n, name in enumerate(images)}, grid, dtype="float64")
    groups = np.repeat(np.arange(RAYS), ENERGIES)
    return replace(dij, variables=Variables(matrix.shape[1], groups=groups, **variables))


GOALS = [
    Goal("target", SquaredDeviation(2.0), weight=10.0),
    Goal("rest", SquaredOverdosing(0.5), weight=1.0),
    Goal("target", SquaredUnderdosing(1.9), weight=5.0),
]
MEMBERS = {"target": (np.arange(100, 200), None), "rest": (np.r_[0:100, 200:300], None)}


STATED = ["squared_deviation", "squared_overdosing", "squared_underdosing", "max_dvh", "min_dvh", "dose_mimicking"]


@pytest.mark.parametrize("name", STATED)
def test_stated_curvature_is_the_slope_of_the_gradient(name, xp_device, rng):
    values = rng.uniform(0.0, 3.0, 40)
    values = values[(np.abs(values - 1.0) > 1e-3) & (np.abs(values - 1.5) > 1e-3)]
    weights = np.full(values.size, 1.0 / values.size)
    for objective in OBJECTIVES.get(name).examples():
        x, w = xp_device.asarray(values), xp_device.asarray(weights)
        step = 1e-6
        rise = (to_numpy(objective.gradient(x + step, w)) - to_numpy(objective.gradient(x - step, w))) / (2 * step)
        np.testing.assert_allclose(to_numpy(objective.curvature(x, w)), rise, rtol=1e-6, atol=1e-9)


def test_other_objectives_state_no_curvature(rng):
    """Those of the mean or the equivalent dose bend in one direction of all voxels: no voxel has a part of its own."""
    values = rng.uniform(0.0, 3.0, 40)
    silent = {
        name for name in OBJECTIVES.names()
        if OBJECTIVES.get(name).examples()[0].curvature(values, np.full(40, 1 / 40)) is None
    }  # fmt: skip
    assert silent == set(OBJECTIVES.names()) - set(STATED)


def test_blocks_are_second_derivatives(rng):
    problem = Problem(model_of(stacked_peaks(rng)), GOALS, fractions=3, weights=MEMBERS)
    x = problem.start * rng.uniform(0.5, 1.5, problem.variables.count)
    blocks = problem.curvature(problem.at(x))
    unit = np.eye(x.size)
    step = 1e-6
    for column in (0, 17, 119):
        up, down = (problem.value_and_gradient(x + sign * step * unit[column])[1] for sign in (1.0, -1.0))
        exact = np.where(problem.variables.groups == problem.variables.groups[column], (up - down) / (2 * step), 0.0)
        found = blocks.times(unit[None, column])[0]
        floor = found[column] - 1.01 * exact[column]
        assert 0.0 < floor < 0.05 * np.median(blocks.diagonal)
        exact[column] = found[column]
        np.testing.assert_allclose(found, exact, rtol=1e-5, atol=1e-6 * found[column])


def test_blocks_lean_on_bounded_doses(rng):
    """A bound on a dose at a volume joins the second derivatives; one on a mean, held as a whole, does not."""
    limits = [Constraint("rest", DoseAtVolume(0.1), upper=0.4), Constraint("rest", Mean(), upper=0.1)]
    problem = Problem(model_of(stacked_peaks(rng)), GOALS, fractions=3, constraints=limits, weights=MEMBERS)
    x = problem.start * rng.uniform(0.5, 1.5, problem.variables.count)
    point = problem.at(x)
    holds = [
        replace(Hold.of(term, own.bounds, point.values_of(term.quantity), 0.0), penalty=penalty)
        for term, own, penalty in zip(problem.constraint_terms, limits, (7.0, 1e-9), strict=True)
    ]
    leaning = AugmentedProblem(problem, tuple(holds))
    blocks, plain = leaning.curvature(leaning.at(x)), problem.curvature(point)
    assert not np.allclose(blocks.diagonal, plain.diagonal, rtol=0.01)
    unit, step = np.eye(x.size), 1e-6
    for column in (3, 60):
        up, down = (leaning.value_and_gradient(x + sign * step * unit[column])[1] for sign in (1.0, -1.0))
        exact = np.where(problem.variables.groups == problem.variables.groups[column], (up - down) / (2 * step), 0.0)
        found = blocks.times(unit[None, column])[0]
        exact[column] = found[column]
        np.testing.assert_allclose(found, exact, rtol=1e-4, atol=1e-5 * found[column])


def test_the_same_optimum_in_fewer_iterations(rng):
    """scipy.optimize.nnls is the reference for the least squares."""
    matrix = stacked_peaks(rng)
    wanted = np.where((np.arange(ROWS) >= 100) & (np.arange(ROWS) < 200), 2.0, 0.2)
    scaled = matrix / wanted[:, None]
    _, residual = scipy.optimize.nnls(scaled, np.ones(ROWS))
    least = residual**2 / ROWS
    members = {"all": (np.arange(ROWS), None)}
    problem = Problem(model_of(scaled), [Goal("all", SquaredDeviation(1.0))], weights=members)
    counts = {}
    for blocks in (False, True):
        solver = ProjectedLBFGS(max_iterations=3000, tolerance=1e-12, blocks=blocks)
        reached = []
        solver.solve(
            problem, callback=lambda step, reached=reached: reached.append(step.value) or step.value < 1.0005 * least
        )
        assert reached[-1] < 1.0005 * least
        counts[blocks] = len(reached)
    assert counts[True] < 0.7 * counts[False], counts


@pytest.mark.parametrize(("upper", "seed"), [(0.1, 3), (0.3, 16), (0.3, 22), (0.05, 0)])
def test_the_optimum_between_bounds_is_reached_with_blocks(upper, seed):
    """SciPy's L-BFGS-B is the reference; a step that goes against the gradient may not jump to the other bound."""
    rng = np.random.default_rng(seed)
    problem = Problem(model_of(stacked_peaks(rng), upper=upper), GOALS, fractions=3, weights=MEMBERS)
    least = scipy.optimize.minimize(
        lambda x: problem.value_and_gradient(x), problem.start, jac=True, method="L-BFGS-B",
        bounds=[(0.0, upper)] * problem.variables.count,
        options={"ftol": 1e-14, "gtol": 1e-9, "maxiter": 5000, "maxfun": 9000},
    )  # fmt: skip
    solution = ProjectedLBFGS(tolerance=1e-7).solve(problem)
    assert solution.status is Status.CONVERGED
    assert solution.value == pytest.approx(least.fun, rel=1e-5)
    assert np.all((solution.x >= 0.0) & (solution.x <= upper))
    assert np.any(solution.x == upper), "the upper bound must matter in this test"
    assert np.all(np.diff(solution.history) <= 1e-9 * np.abs(solution.history[:-1]))


def test_groups_must_ascend():
    with pytest.raises(InputError, match="3 ascending numbers"):
        Variables(3, groups=[0, 1, 0])
    with pytest.raises(InputError, match="3 ascending numbers"):
        Variables(3, groups=[0, 1])
