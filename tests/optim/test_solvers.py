"""Solvers: the optimum of a convex problem, bounds, warm starts, interruption, backends."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from scipy.optimize import lsq_linear

from radplan.arrays import device_of, to_numpy
from radplan.errors import CalculationError, InputError
from radplan.influence import Dij, Variables
from radplan.optim import (
    SOLVERS,
    Constraint,
    Goal,
    Mean,
    Objective,
    Problem,
    ProjectedLBFGS,
    ScipyLBFGSB,
    SquaredDeviation,
    SquaredOverdosing,
    SquaredUnderdosing,
    Status,
)

from .conftest import GRID, MEMBERS, make_dij, matrices
from .test_problem import GOALS, Squares

TIGHT = [
    pytest.param(ProjectedLBFGS(tolerance=1e-12, max_iterations=2000), id="lbfgs"),
    pytest.param(ScipyLBFGSB(tolerance=1e-14, max_iterations=2000), id="scipy"),
]
QUADRATIC = [Goal("target", SquaredDeviation(60.0), 10.0), Goal("organ", SquaredDeviation(0.0), 3.0)]


@dataclass(frozen=True)
class Undefined(Objective):
    """An objective that is not a number anywhere."""

    name = "undefined"

    def value(self, values, weights):
        return values[0] * float("nan")

    def gradient(self, values, weights):
        return values * float("nan")

    @classmethod
    def examples(cls):
        return [cls()]


def least_squares(columns=12):
    """The exact optimum of QUADRATIC by an active-set method of another library."""
    d = 30 * matrices(columns=columns)[0]
    rows = np.concatenate([np.sqrt(10 / 18) * d[:18], np.sqrt(3 / 12) * d[18:30]])
    right = np.concatenate([np.full(18, 60 * np.sqrt(10 / 18)), np.zeros(12)])
    return lsq_linear(rows, right, (0, np.inf), method="bvls", tol=1e-14)


@pytest.mark.parametrize("solver", TIGHT)
def test_optimum_of_a_bounded_least_squares_problem(solver):
    exact = least_squares()
    assert np.sum(exact.x < 1e-9) >= 2
    problem = Problem(make_dij(), QUADRATIC, fractions=30, weights=MEMBERS)
    found = solver.solve(problem)
    assert found.status is Status.CONVERGED
    assert found.value == pytest.approx(2 * exact.cost, rel=1e-8)
    np.testing.assert_allclose(found.x, exact.x, atol=1e-3)
    assert found.x.min() >= 0.0


def test_backends_agree(xp_target):
    problem = Problem(make_dij(xp_target.name), QUADRATIC, fractions=30, weights=MEMBERS)
    found = ProjectedLBFGS(tolerance=1e-9).solve(problem)
    assert found.value == pytest.approx(2 * least_squares().cost, rel=1e-6)
    assert device_of(found.x) == device_of(problem.start)
    reference = ScipyLBFGSB(tolerance=1e-12).solve(problem)
    assert device_of(reference.x) == device_of(problem.start)
    assert found.value == pytest.approx(reference.value, rel=1e-6)


def test_single_precision_reaches_the_optimum(xp_target):
    problem = Problem(make_dij(xp_target.name, "float32"), QUADRATIC, fractions=30, weights=MEMBERS)
    assert ProjectedLBFGS(tolerance=1e-6).solve(problem).value == pytest.approx(2 * least_squares().cost, rel=1e-4)


def test_nonquadratic_goals_against_scipy():
    problem = Problem(make_dij(), GOALS, fractions=30, weights=MEMBERS)
    ours, reference = (parameter.values[0].solve(problem).value for parameter in TIGHT)
    assert ours <= reference * (1 + 1e-6)


def test_upper_bounds():
    model = replace(make_dij(), variables=Variables(12, lower=0.05, upper=np.full(12, 0.4)))
    problem = Problem(model, QUADRATIC, fractions=30, weights=MEMBERS)
    for parameter in TIGHT:
        found = parameter.values[0].solve(problem)
        assert found.x.min() >= 0.05
        assert found.x.max() <= 0.4
        np.testing.assert_allclose(found.value, lsq_bounded(0.05, 0.4), rtol=1e-8)


def lsq_bounded(lower, upper):
    d = 30 * matrices()[0]
    rows = np.concatenate([np.sqrt(10 / 18) * d[:18], np.sqrt(3 / 12) * d[18:30]])
    right = np.concatenate([np.full(18, 60 * np.sqrt(10 / 18)), np.zeros(12)])
    return 2 * lsq_linear(rows, right, (lower, upper), method="bvls", tol=1e-14).cost


def test_nonlinear_model():
    linear = Problem(make_dij(), QUADRATIC, fractions=30, weights=MEMBERS)
    problem = Problem(Squares(make_dij()), QUADRATIC, fractions=30, weights=MEMBERS)
    found = ProjectedLBFGS(tolerance=1e-9, max_iterations=3000).solve(problem, x0=np.full(12, 0.5))
    assert found.value == pytest.approx(ProjectedLBFGS(tolerance=1e-12).solve(linear).value, rel=1e-4)


@pytest.mark.parametrize("columns", [1, 2])
def test_fewer_variables_than_memory(columns):
    model = Dij.from_matrices({"physical_dose": matrices(columns=columns)[0]}, GRID, dtype="float64")
    problem = Problem(model, QUADRATIC, fractions=30, weights=MEMBERS)
    found = ProjectedLBFGS(tolerance=1e-12).solve(problem)
    assert found.value == pytest.approx(2 * least_squares(columns).cost, rel=1e-9)


def test_goals_met_exactly_end_at_once():
    problem = Problem(make_dij(), [Goal("target", SquaredUnderdosing(0.0))], weights=MEMBERS)
    found = ProjectedLBFGS().solve(problem)
    assert found.value == 0.0
    assert found.status is Status.CONVERGED
    assert found.iterations == 0


@pytest.mark.parametrize("robust", ["expected", "worst", "voxelwise_worst", "cvar"])
def test_robust_goals_do_better_in_what_they_ask_for(robust):
    def goals(kind):
        return [
            Goal("target", SquaredDeviation(60.0), 10.0, robust=kind, tail=0.3),
            Goal("organ", SquaredOverdosing(10.0), 3.0, robust=kind, tail=0.3),
        ]

    model = make_dij(scenarios=3)
    plain = ProjectedLBFGS().solve(Problem(model, goals("nominal"), fractions=30, weights=MEMBERS))
    problem = Problem(model, goals(robust), fractions=30, weights=MEMBERS)
    found = ProjectedLBFGS().solve(problem, x0=plain.x)
    assert found.value < float(problem.at(plain.x).value)


@pytest.mark.parametrize("name", SOLVERS.names())
def test_warm_start_and_history(name):
    solver = SOLVERS.get(name)()
    problem = Problem(make_dij(), GOALS, fractions=30, weights=MEMBERS)
    first = solver.solve(problem)
    assert list(first.history) == sorted(first.history, reverse=True)
    assert first.start_value > first.history[0]
    again = solver.solve(problem, x0=to_numpy(first.x))
    assert again.iterations < first.iterations
    assert again.value <= first.value * (1 + 1e-9)


@pytest.mark.parametrize("name", SOLVERS.names())
def test_callback_stops_and_interruption_returns_the_best(name):
    problem = Problem(make_dij(), GOALS, fractions=30, weights=MEMBERS)
    seen = []

    def stop(progress):
        seen.append(progress)
        return progress.iteration == 5

    found = SOLVERS.get(name)().solve(problem, callback=stop)
    assert found.status is Status.STOPPED
    assert [entry.iteration for entry in seen] == [1, 2, 3, 4, 5]
    assert found.value == pytest.approx(seen[-1].value)

    def interrupt(progress):
        if progress.iteration == 4:
            raise KeyboardInterrupt

    found = SOLVERS.get(name)().solve(problem, callback=interrupt)
    assert found.status is Status.INTERRUPTED
    assert "start again" in found.status.advice
    assert float(problem.at(found.x).value) == pytest.approx(seen[3].value)


@pytest.mark.parametrize("name", SOLVERS.names())
def test_limit_of_iterations(name):
    problem = Problem(make_dij(), GOALS, fractions=30, weights=MEMBERS)
    found = SOLVERS.get(name)(max_iterations=3).solve(problem)
    assert found.status is Status.ITERATION_LIMIT
    assert found.iterations == 3


@pytest.mark.parametrize("name", SOLVERS.names())
def test_refuses(name):
    solver = SOLVERS.get(name)()
    problem = Problem(make_dij(), GOALS, fractions=30, weights=MEMBERS)
    with pytest.raises(InputError, match=r"x0 must have shape \(12,\), got \(3,\)"):
        solver.solve(problem, x0=np.ones(3))
    with pytest.raises(InputError, match="NaN or infinite"):
        solver.solve(problem, x0=np.full(12, np.nan))
    limited = Problem(make_dij(), GOALS, constraints=[Constraint("organ", Mean(), upper=1.0)], weights=MEMBERS)
    with pytest.raises(InputError, match="not the 1 constraints given"):
        solver.solve(limited)
    broken = Problem(make_dij(), [*GOALS, Goal("target", Undefined())], weights=MEMBERS)
    with pytest.raises(CalculationError, match="in 1 goals: target: undefined of physical_dose"):
        solver.solve(broken)
    for options in ({"max_iterations": 0}, {"memory": 2.5}, {"tolerance": 1.5}):
        with pytest.raises(InputError, match=f"{next(iter(options))} "):
            SOLVERS.get(name)(**options)
