"""Solvers that take constraints, on each type of problem: optimum, feasibility, warm start, callback, interruption."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import scipy.optimize

from radplan.arrays import to_numpy
from radplan.errors import CalculationError, InputError
from radplan.geometry.grid import Grid
from radplan.influence import Dij
from radplan.optim import EUD, Constraint, Goal, Mean, Problem, SquaredDeviation, SquaredOverdosing, Status
from radplan.optim.solvers import AugmentedLagrangian, Ipopt, ProjectedLBFGS, ScipyLBFGSB

SOLVERS = [AugmentedLagrangian(tolerance=1e-7, violation=1e-3), *Ipopt.examples()]
ROWS, COLUMNS = 60, 12
TYPES = {
    "linear": [("organ", Mean(), None, 5.0)],
    "convex": [("organ", EUD(exponent=8.0, form="value"), None, 8.0)],
    "both sides": [("organ", Mean(), 5.0, 5.0)],
    "two": [("organ", Mean(), None, 7.0), ("target", EUD(exponent=-5.0, form="value"), 7.8, None)],
    "inactive": [("organ", Mean(), None, 60.0)],
}


def problem(kind: str, device: str = "numpy") -> Problem:
    rng = np.random.default_rng(11)
    matrix = rng.random((ROWS, COLUMNS)) * (rng.random((ROWS, COLUMNS)) < 0.7)
    grid = Grid((1, 1, ROWS), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    dij = Dij.from_matrices({"physical_dose": matrix}, grid, device=device, dtype="float64")
    members = {"target": (np.arange(20), None), "organ": (np.arange(20, 35), None), "body": (np.arange(35, ROWS), None)}
    goals = [Goal("target", SquaredDeviation(10.0), 10.0), Goal("body", SquaredOverdosing(5.0))]
    constraints = [Constraint(name, objective, low, high) for name, objective, low, high in TYPES[kind]]
    return Problem(dij, goals, constraints=constraints, weights=members)


@functools.cache
def optimum(kind: str) -> float:
    """The cost that SciPy's SLSQP ends at."""
    own = problem(kind)
    rows = []
    for row, (low, high) in enumerate(constraint.bounds for constraint in own.constraints):
        for sign, bound in ((1.0, low), (-1.0, high)):
            if np.isfinite(bound):
                rows.append(
                    {
                        "type": "ineq",
                        "fun": lambda x, r=row, s=sign, b=bound: s * (own.constraint_values(x)[r] - b),
                        "jac": lambda x, r=row, s=sign: s * own.constraint_jacobian(x)[r],
                    }
                )
    exact = scipy.optimize.minimize(
        lambda x: float(own.at(x).value), own.start, jac=lambda x: own.at(x).gradient, method="SLSQP",
        bounds=[(0.0, None)] * COLUMNS, constraints=rows, options={"ftol": 1e-10, "maxiter": 1000},
    )  # fmt: skip
    assert exact.success
    return float(exact.fun)


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("solver", SOLVERS, ids=repr)
def test_optimum_is_feasible_and_that_of_another_library(solver, kind):
    found = solver.solve(problem(kind))
    assert found.status is Status.CONVERGED
    assert not found.missed
    assert found.value == pytest.approx(optimum(kind), rel=0.01)
    assert np.all(to_numpy(found.x) >= 0.0)


@pytest.mark.parametrize("solver", SOLVERS, ids=repr)
def test_every_device_ends_at_the_same_cost(solver, xp_device):
    found = solver.solve(problem("two", xp_device.name))
    assert found.value == pytest.approx(optimum("two"), rel=0.01)
    assert not found.missed


@pytest.mark.parametrize("solver", SOLVERS, ids=repr)
def test_a_warm_start_is_not_lost(solver):
    first = solver.solve(problem("two"))
    again = solver.solve(problem("two"), first.x)
    assert again.value == pytest.approx(first.value, rel=0.01)
    assert not again.missed


@pytest.mark.parametrize("solver", SOLVERS, ids=repr)
def test_a_callback_is_told_each_iteration_and_ends_the_search(solver):
    told = []
    found = solver.solve(problem("two"), callback=lambda step: told.append(step.iteration) or len(told) == 4)
    assert told == [1, 2, 3, 4]
    assert found.status is Status.STOPPED
    assert np.all(np.isfinite(to_numpy(found.x)))
    assert len(found.kept) == 2


@pytest.mark.parametrize("solver", SOLVERS, ids=repr)
def test_an_interruption_returns_the_best_so_far(solver):
    def stop(step):
        if step.iteration == 3:
            raise KeyboardInterrupt

    found = solver.solve(problem("two"), callback=stop)
    assert found.status is Status.INTERRUPTED
    assert np.isfinite(found.value)


@pytest.mark.parametrize("solver", SOLVERS, ids=repr)
def test_nan_midway_is_an_error_with_its_cause(solver, monkeypatch):
    own, calls = problem("two"), []
    forward = type(own.model).forward

    def spoiled(model, x, images=None):
        given = forward(model, x, images)
        calls.append(1)
        return {name: values * np.nan for name, values in given.items()} if len(calls) > 6 else given

    monkeypatch.setattr(type(own.model), "forward", spoiled)
    with pytest.raises(CalculationError, match="target: squared_deviation of physical_dose"):
        solver.solve(own)


@pytest.mark.parametrize("solver", SOLVERS, ids=repr)
def test_the_same_bits_each_time(solver):
    first, second = (to_numpy(solver.solve(problem("convex")).x) for _ in range(2))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("solver", SOLVERS, ids=repr)
def test_what_cannot_be_kept_is_infeasible(solver):
    own = problem("two").bounded_by(
        [Constraint("organ", Mean(), upper=0.5), Constraint("target", EUD(exponent=-5.0, form="value"), lower=12.0)]
    )
    found = solver.solve(own)
    assert found.status is not Status.CONVERGED
    assert found.missed
    assert "Relax" in found.advice


@pytest.mark.parametrize("solver", [ProjectedLBFGS(), ScipyLBFGSB()], ids=repr)
def test_solvers_without_constraints_say_so(solver):
    with pytest.raises(InputError, match="takes bounds only, not the 2 constraints"):
        solver.solve(problem("two"))
