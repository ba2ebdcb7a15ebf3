"""Every registered solver finds the optimum of a non-negative least-squares problem, on every backend."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.optimize

from radplan import arrays
from radplan.geometry import Grid
from radplan.influence import Dij
from radplan.optim import SOLVERS, Goal, Problem
from radplan.optim.objectives import SquaredDeviation


@pytest.mark.parametrize("name", SOLVERS.names())
def test_solver_reaches_the_non_negative_least_squares_optimum(name, xp_device, rng):
    """scipy.optimize.nnls is the reference: an active-set method that is exact up to rounding."""
    matrix = rng.random((30, 8))
    matrix[:, 3] = 0.0
    matrix[0, :] += 5.0  # the first voxel is overdosed by all, and column 3 reaches no other
    wanted = 1.0
    expected, residual = scipy.optimize.nnls(matrix, np.full(30, wanted))
    dij = Dij.from_matrices(
        {"physical_dose": matrix}, Grid((1, 1, 30), (1, 1, 1), (0, 0, 0)), device=xp_device.name, dtype="float64"
    )
    goal = Goal("all", SquaredDeviation(wanted))
    for solver in SOLVERS.get(name).examples():
        problem = Problem(dij, [goal], weights={"all": (np.arange(30), None)})
        solution = solver.solve(problem)
        x = arrays.to_numpy(solution.x)
        assert np.all(x >= 0.0)
        assert solution.value == pytest.approx(residual**2 / 30, rel=1e-4)
        assert np.any(expected == 0.0), "the bound must matter in this test"
