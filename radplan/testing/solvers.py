"""The check of a solver: optimum, bounds, start, callback and refusals, on every device."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import scipy.optimize

from radplan.arrays import backend_name, to_numpy
from radplan.errors import CalculationError, InputError
from radplan.geometry import Grid
from radplan.influence import Dij
from radplan.optim import SOLVERS, Goal, Problem
from radplan.optim.objectives import SquaredDeviation
from radplan.optim.solvers import Solver, Status
from radplan.testing.arrays import examples_of, wanted_devices

_ROWS, _COLUMNS = 30, 8


def check_solver(solver: str | type[Solver] | Solver, devices: Iterable[str] | None = None) -> None:
    """Check a solver on a least-squares problem with bounds, whose optimum ``scipy.optimize.nnls`` gives.

    It reaches the optimum to 1e-3 from the problem's start and stays there from the optimum; every point is within the
    bounds and on the problem's device; a callback is told each iteration, counted from 1, and ends the search; a start
    that does not fit, or a cost that is NaN, raises.

    Parameters
    ----------
    solver : str, class or Solver
        A registered name or a class, whose `examples` are checked, or one instance.
    devices : iterable of str, optional
        Device strings; all that this machine has when left out.

    Raises
    ------
    AssertionError
        When a promise is broken.

    >>> check_solver("lbfgs", devices=["numpy"])
    """
    matrix = np.random.default_rng(4).random((_ROWS, _COLUMNS))
    matrix[:, 3] = 0.0
    matrix[0, :] += 5.0
    best = scipy.optimize.nnls(matrix, np.ones(_ROWS))[1] ** 2 / _ROWS
    for example in examples_of(solver, SOLVERS, Solver):
        for name in wanted_devices(devices):
            label = f"solver {example!r} on {name}"
            problem = _problem(matrix, name)
            _check_optimum(example, problem, best, label)
            _check_callback(example, problem, label)
            _check_refusals(example, problem, _problem(np.full_like(matrix, 1e30), name), label)


def _problem(matrix: Any, device: str) -> Problem:
    grid = Grid((1, 1, _ROWS), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    dij = Dij.from_matrices({"physical_dose": matrix}, grid, device=device, dtype="float64")
    return Problem(dij, [Goal("all", SquaredDeviation(1.0))], weights={"all": (np.arange(_ROWS), None)})


def _check_optimum(solver: Solver, problem: Problem, best: float, label: str) -> None:
    found = solver.solve(problem)
    x = to_numpy(found.x)
    assert x.shape == (_COLUMNS,), f"{label}: x must have shape ({_COLUMNS},), got {x.shape}"
    assert backend_name(found.x) == problem.model.device.backend, f"{label} moved x to {backend_name(found.x)}"
    assert np.all(x >= 0.0), f"{label}: x falls to {x.min():g}, below the bound 0"
    assert abs(found.value - best) <= 1e-3 * best, f"{label} ends at {found.value:.9g}, the optimum is {best:.9g}"
    assert found.value <= found.start_value, f"{label} ends above its start: {found.value:g} > {found.start_value:g}"
    assert found.iterations >= 1, f"{label} tells of no iteration"
    assert isinstance(found.status, Status), f"{label}: status must be a Status, got {found.status!r}"
    again = solver.solve(problem, found.x)
    assert again.value <= found.value * (1.0 + 1e-9), (
        f"{label}: started at {found.value:.9g} it returns a worse point, {again.value:.9g}"
    )


def _check_callback(solver: Solver, problem: Problem, label: str) -> None:
    told: list[int] = []

    def end(step: Any) -> bool:
        told.append(step.iteration)
        return len(told) == 2

    found = solver.solve(problem, callback=end)
    assert told == [1, 2], f"{label}: a callback is told iterations 1, 2, ... and ends the search, got {told}"
    assert found.status is Status.STOPPED, f"{label}: a callback ended the search, but the status is {found.status}"


def _check_refusals(solver: Solver, problem: Problem, endless: Problem, label: str) -> None:
    for x0 in (np.ones(3), np.full(_COLUMNS, np.nan)):
        try:
            solver.solve(problem, x0=x0)
        except InputError:
            continue
        raise AssertionError(f"{label} takes a start of shape {x0.shape} with values {x0[:3]}: use first_point")
    try:
        with np.errstate(all="ignore"):
            solver.solve(endless, x0=np.full(_COLUMNS, 1e200))
    except CalculationError:
        return
    raise AssertionError(f"{label} returns although the cost is not finite: raise CalculationError")
