"""SciPy's L-BFGS-B with the same scaling and start: the reference the default solver is measured against."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import minimize

from radplan.arrays import Array, like, scalar, to_numpy
from radplan.errors import InputError
from radplan.kernels.threads import one_blas_thread
from radplan.optim.problem import Problem
from radplan.optim.solvers.base import (
    SOLVERS,
    Callback,
    Progress,
    Solution,
    Solver,
    Status,
    checked_value,
    first_point,
    last_value,
    refuse_constraints,
)


@SOLVERS.register
@dataclass(frozen=True)
class ScipyLBFGSB(Solver):
    r"""SciPy's L-BFGS-B on the host, in variables divided by the problem's scale.

    Parameters
    ----------
    max_iterations : int
        Largest number of iterations, >= 1.
    tolerance : float
        Converged when the cost falls by less than this fraction in one iteration, >= 0.
    memory : int
        Number of curvature pairs, >= 1.

    Raises
    ------
    InputError
        When an option is out of range, or the variables hold each other, as opposed leaves do.

    Source: Zhu, Byrd, Lu and Nocedal, ACM Trans. Math. Softw. 23 (1997) 550.

    >>> ScipyLBFGSB(max_iterations=100).memory
    10
    """

    max_iterations: int = 500
    tolerance: float = 1e-7
    memory: int = 10

    name = "scipy_lbfgsb"

    def __post_init__(self) -> None:
        for key in ("max_iterations", "memory"):
            value = self.__dict__[key]
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InputError(f"scipy_lbfgsb: {key} must be a whole number >= 1, got {value!r}")
        if not 0.0 <= self.tolerance < 1.0:
            raise InputError(f"scipy_lbfgsb: tolerance must lie in [0, 1), got {self.tolerance!r}")

    def solve(self, problem: Problem, x0: Array | None = None, callback: Callback | None = None) -> Solution:
        refuse_constraints(self, problem)
        if not problem.variables.separable:
            raise InputError(
                f"the solver {self.name!r} knows bounds only, but these variables hold each other (leaves keep a gap): "
                "take 'lbfgs'"
            )
        x = first_point(problem, x0)
        try:
            search = _Search(problem, x, callback)
        except KeyboardInterrupt:
            value, status = last_value(problem, x, Status.INTERRUPTED)
            return Solution(x, value, status, (), value)
        options = {"maxiter": self.max_iterations, "maxfun": 10 * self.max_iterations, "maxcor": self.memory}
        bounds = np.stack([search.on_host(problem.variables.lower), search.on_host(problem.variables.upper)], axis=1)
        start = to_numpy(x) / search.scale
        status = Status.INTERRUPTED
        try:
            with one_blas_thread():
                result: Any = minimize(  # type: ignore[call-overload]
                    search.cost,
                    start,
                    jac=True,
                    method="L-BFGS-B",
                    bounds=bounds / search.scale[:, None],
                    callback=search.after_iteration,
                    options={**options, "ftol": self.tolerance, "gtol": 0.0},
                )
            status = {0: Status.CONVERGED, 1: Status.ITERATION_LIMIT}.get(int(result.status), Status.STALLED)
        except KeyboardInterrupt:
            status = Status.INTERRUPTED
        except _Stopped:
            status = Status.STOPPED
        best = problem.variables.project(search.on_device(search.best))
        return Solution(best, search.best_value, status, tuple(search.history), search.start_value)


class _Stopped(Exception):  # noqa: N818 -- not an error
    """The callback asked to stop."""


class _Search:
    """What SciPy calls: the cost in scaled host variables, with the best point kept for an interruption."""

    def __init__(self, problem: Problem, x: Array, callback: Callback | None) -> None:
        self.problem, self.callback, self.beside = problem, callback, x
        self.scale: Any = to_numpy(problem.scale).astype(np.float64)
        self.best: Any = to_numpy(x) / self.scale
        self.best_value = self.start_value = self.cost(self.best)[0]
        self.history: list[float] = []

    def on_host(self, bound: Any) -> Any:
        return np.broadcast_to(np.asarray(to_numpy(bound), dtype=np.float64), self.scale.shape)

    def on_device(self, z: Any) -> Array:
        return like(z * self.scale, self.beside)

    def cost(self, z: Any) -> tuple[float, Any]:
        point = self.problem.at(self.on_device(z))
        value = checked_value(self.problem, point, scalar(point.value))
        return value, to_numpy(point.gradient).astype(np.float64) * self.scale

    def after_iteration(self, intermediate_result: Any) -> None:
        value = float(intermediate_result.fun)
        if value <= self.best_value:
            self.best, self.best_value = np.array(intermediate_result.x), value
        self.history.append(value)
        if self.callback is not None:
            told = Progress(len(self.history), value, self.on_device(intermediate_result.x))
            if self.callback(told) is True:
                raise _Stopped
