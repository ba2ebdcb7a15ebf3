"""Every registered solver keeps its promises: optimum, bounds, warm start, callback, interruption, NaN, threads."""

from __future__ import annotations

from copy import copy

import numba
import numpy as np
import pytest
import scipy.optimize

from radplan import arrays
from radplan.errors import CalculationError
from radplan.geometry import Grid
from radplan.influence import Dij
from radplan.kernels import sparse
from radplan.optim import SOLVERS, Goal, Problem
from radplan.optim.objectives import SquaredDeviation, SquaredOverdosing
from radplan.optim.solvers import Status

SOLVER_EXAMPLES = [solver for name in SOLVERS.names() for solver in SOLVERS.get(name).examples()]
ROWS = 30


def grid_of(rows):
    return Grid((1, 1, rows), (1, 1, 1), (0, 0, 0))


def least_squares(rng):
    matrix = rng.random((ROWS, 8))
    matrix[:, 3] = 0.0
    matrix[0, :] += 5.0  # the first voxel is overdosed by all, and column 3 reaches no other
    return matrix


def problem_of(matrix, device="numpy", dtype="float64", goals=None):
    dij = Dij.from_matrices({"physical_dose": matrix}, grid_of(matrix.shape[0]), device=device, dtype=dtype)
    rows = np.arange(matrix.shape[0])
    return Problem(dij, goals or [Goal("all", SquaredDeviation(1.0))], weights={"all": (rows, None)})


class Disturbed:
    """A model whose forward does something else from its n-th call on."""

    def __init__(self, model, call, disturb):
        self.model, self.left, self.disturb = model, call, disturb

    def __getattr__(self, name):
        return getattr(self.model, name)

    def forward(self, x, images=None):
        self.left -= 1
        return self.disturb(self, self.model.forward(x, images))


def disturbed(problem, call, disturb):
    other = copy(problem)
    other._model = Disturbed(problem.model, call, disturb)
    return other


@pytest.mark.parametrize("solver", SOLVER_EXAMPLES, ids=repr)
def test_the_non_negative_least_squares_optimum_is_reached(solver, xp_device, rng):
    """scipy.optimize.nnls is the reference: an active-set method that is exact up to rounding."""
    matrix = least_squares(rng)
    expected, residual = scipy.optimize.nnls(matrix, np.full(ROWS, 1.0))
    solution = solver.solve(problem_of(matrix, xp_device.name))
    x = arrays.to_numpy(solution.x)
    assert np.all(x >= 0.0)
    assert solution.value == pytest.approx(residual**2 / ROWS, rel=1e-4)
    assert np.any(expected == 0.0), "the bound must matter in this test"


@pytest.mark.parametrize("solver", SOLVER_EXAMPLES, ids=repr)
def test_bounds_on_both_sides_hold(solver, xp_device, rng):
    """scipy.optimize.lsq_linear is the reference."""
    matrix = rng.random((ROWS, 8))
    problem = problem_of(matrix, xp_device.name)
    lower, upper = np.full(8, 0.15), np.full(8, 0.3)
    bounded = problem.bounded(xp_device.asarray(lower), xp_device.asarray(upper))
    expected = scipy.optimize.lsq_linear(matrix, np.ones(ROWS), (lower, upper), tol=1e-12)
    solution = solver.solve(bounded)
    x = arrays.to_numpy(solution.x)
    assert np.all((x >= lower) & (x <= upper))
    assert solution.value == pytest.approx(2.0 * expected.cost / ROWS, rel=1e-4)
    assert np.any(np.isclose(expected.x, lower)), "both bounds must matter in this test"
    assert np.any(np.isclose(expected.x, upper))


@pytest.mark.parametrize("solver", SOLVER_EXAMPLES, ids=repr)
def test_a_warm_start_costs_few_iterations(solver, rng):
    problem = problem_of(least_squares(rng))
    cold = solver.solve(problem)
    warm = solver.solve(problem, cold.x)
    assert warm.value <= cold.value * (1.0 + 1e-9)
    assert warm.start_value == pytest.approx(cold.value, rel=1e-9)
    assert warm.iterations <= max(cold.iterations // 2, 11)


@pytest.mark.parametrize("solver", SOLVER_EXAMPLES, ids=repr)
def test_the_callback_sees_every_iteration_and_ends_the_search(solver, rng):
    told = []
    solution = solver.solve(problem_of(least_squares(rng)), callback=lambda step: told.append(step) or len(told) == 3)
    assert solution.status is Status.STOPPED
    assert [step.iteration for step in told] == [1, 2, 3]
    assert solution.value == pytest.approx(told[-1].value, rel=1e-9)
    assert solution.history == pytest.approx([step.value for step in told])


@pytest.mark.parametrize("solver", SOLVER_EXAMPLES, ids=repr)
def test_an_interruption_is_never_lost(solver, rng):
    """At whichever forward it comes, the best point so far is returned and said to be it."""

    def interrupt(model, images):
        if model.left == 0:
            raise KeyboardInterrupt
        return images

    problem = problem_of(
        least_squares(rng), goals=[Goal("all", SquaredDeviation(1.0)), Goal("all", SquaredOverdosing(1.2))]
    )
    ended = 0
    for call in range(1, 25):
        solution = solver.solve(disturbed(problem, call, interrupt))
        assert np.isfinite(solution.value)
        assert solution.value <= solution.start_value
        ended += solution.status is Status.INTERRUPTED
    assert ended >= 5


@pytest.mark.parametrize("call", [1, 2, 5, 9])
@pytest.mark.parametrize("solver", SOLVER_EXAMPLES, ids=repr)
def test_nan_midway_is_an_error_with_its_cause(solver, call, rng):
    def spoil(model, images):
        return {name: image * np.nan for name, image in images.items()} if model.left <= 0 else images

    with pytest.raises(CalculationError, match="all: squared_deviation"):
        solver.solve(disturbed(problem_of(least_squares(rng)), call, spoil))


@pytest.mark.parametrize("solver", SOLVER_EXAMPLES, ids=repr)
def test_threads_do_not_change_a_bit(solver, rng, monkeypatch):
    monkeypatch.setattr(sparse, "THREADS_FROM", 0)
    matrix = np.kron(rng.random((200, 5)) < 0.5, np.ones((1, 8))) * rng.random((200, 40))
    found = []
    before = numba.get_num_threads()
    try:
        for threads in (1, min(2, numba.config.NUMBA_NUM_THREADS)):
            numba.set_num_threads(threads)
            found.append(solver.solve(problem_of(matrix, dtype="float32")))
    finally:
        numba.set_num_threads(before)
    assert found[0].x.tobytes() == found[1].x.tobytes()
    assert found[0].history == found[1].history
