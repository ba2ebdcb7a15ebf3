"""A custom solver: projected gradient descent whose step halves until the cost falls, for teaching."""

from __future__ import annotations

import math
from dataclasses import dataclass

from radplan.arrays import to_numpy
from radplan.errors import CalculationError
from radplan.optim import SOLVERS, Solver
from radplan.optim.solvers import Progress, Solution, Status
from radplan.optim.solvers.base import first_point, refuse_constraints


@SOLVERS.register
@dataclass(frozen=True)
class Descent(Solver):
    """Steps ``x - t s^2 grad f``, s the problem's scale, projected into the bounds."""

    max_iterations: int = 2000
    tolerance: float = 1e-7

    name = "descent"

    def solve(self, problem, x0=None, callback=None) -> Solution:
        refuse_constraints(self, problem)
        x, step, history, status = first_point(problem, x0), 1.0, [], Status.ITERATION_LIMIT
        value, gradient = problem.value_and_gradient(x)
        start = float(to_numpy(value))
        if not math.isfinite(start):
            raise CalculationError(f"the cost at the start is {start}")
        for _ in range(self.max_iterations):
            trial = problem.variables.project(x - step * problem.scale**2 * gradient)
            lower, slope = problem.value_and_gradient(trial)
            if not float(to_numpy(lower)) < float(to_numpy(value)):
                step *= 0.5
                if step < 1e-12:
                    status = Status.STALLED
                    break
                continue
            fall = float(to_numpy(value - lower)) / max(abs(float(to_numpy(value))), 1e-300)
            x, value, gradient, step = trial, lower, slope, 2.0 * step
            history.append(float(to_numpy(value)))
            if callback is not None and callback(Progress(len(history), history[-1], x)) is True:
                status = Status.STOPPED
                break
            if fall < self.tolerance:
                status = Status.CONVERGED
                break
        return Solution(x, float(to_numpy(value)), status, tuple(history), start)
