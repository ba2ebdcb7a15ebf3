"""IPOPT, an interior-point method for smooth constraints, where the extra ``solvers`` is installed."""

from __future__ import annotations

import importlib.util
import math
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from radplan.arrays import Array, like, scalar, to_numpy
from radplan.errors import InputError
from radplan.kernels.threads import one_blas_thread
from radplan.optim.points import Point
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
    last_judged,
    last_value,
)

Floats = npt.NDArray[np.float64]

_STATUS = {
    0: Status.CONVERGED,
    1: Status.CONVERGED,
    2: Status.INFEASIBLE,
    3: Status.STALLED,
    5: Status.STOPPED,
    -1: Status.ITERATION_LIMIT,
}
"""What IPOPT's own codes mean; any other one is a search that got stuck."""
_UNBOUNDED = 2e19
"""What IPOPT takes for infinite."""


@SOLVERS.register
@dataclass(frozen=True)
class Ipopt(Solver):
    r"""IPOPT with limited-memory Hessians on the host, in variables divided by the problem's scale.

    Constraints are handed over as they are, by value and Jacobian: one adjoint for each. They must be smooth; a dose at
    a volume is only piecewise so. Needs ``pip install radplan[solvers]``.

    Parameters
    ----------
    max_iterations : int
        Largest number of iterations, >= 1.
    tolerance : float
        Converged when the cost changes by less than this fraction in each of five iterations, or at IPOPT's own
        optimality of a hundredth of it, > 0.
    memory : int
        Number of curvature pairs, >= 1.
    violation : float
        By how much a bounded metric may be off at the end, in its own unit (Gy, %), > 0.

    Raises
    ------
    InputError
        When an option is out of range, ``ipyopt`` is not installed, or the variables hold each other.

    Source: Waechter and Biegler, Math. Program. 106 (2006) 25.

    >>> Ipopt(max_iterations=100).memory
    20
    """

    max_iterations: int = 1000
    tolerance: float = 1e-5
    memory: int = 20
    violation: float = 0.1

    name = "ipopt"

    def __post_init__(self) -> None:
        for key in ("max_iterations", "memory"):
            value = self.__dict__[key]
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InputError(f"ipopt: {key} must be a whole number >= 1, got {value!r}")
        if not 0.0 < self.tolerance < 1.0 or not 0.0 < self.violation < math.inf:
            given = (self.tolerance, self.violation)
            raise InputError(f"ipopt: tolerance must lie in (0, 1) and violation be > 0, got {given}")

    @classmethod
    def examples(cls) -> list[Self]:
        return [cls(tolerance=1e-7)] if importlib.util.find_spec("ipyopt") else []

    def solve(self, problem: Problem, x0: Array | None = None, callback: Callback | None = None) -> Solution:
        if importlib.util.find_spec("ipyopt") is None:
            raise InputError("the solver 'ipopt' needs the package ipyopt: pip install 'radplan[solvers]'")
        if not problem.variables.separable:
            raise InputError(
                "the solver 'ipopt' knows no variables that hold each other (leaves keep a gap): take 'lbfgs'"
            )
        x = first_point(problem, x0)
        try:
            start_value = scalar(problem.at(x).value)
        except KeyboardInterrupt:
            value, status = last_value(problem, x, Status.INTERRUPTED)
            return Solution(x, value, status, (), value, last_judged(problem, x, status)[0], self.violation)
        search = _Search(problem, x, callback)
        with one_blas_thread():
            status = search.run(self._options())
        best = problem.variables.project(like(search.z * search.scale, x))
        value, status = last_value(problem, best, status)
        if not problem.constraints and value > start_value:
            # Why: the barrier pushes a start off its bounds, and does not always come back.
            best, value = x, start_value
        kept, status = last_judged(problem, best, status)
        solution = Solution(best, value, status, tuple(search.history), start_value, kept, self.violation)
        if status is Status.CONVERGED and solution.missed:
            status = Status.INFEASIBLE
        return Solution(best, value, status, tuple(search.history), start_value, kept, self.violation)

    def _options(self) -> dict[str, Any]:
        return {
            "print_level": 0,
            "sb": "yes",
            "hessian_approximation": "limited-memory",
            "limited_memory_max_history": self.memory,
            "max_iter": self.max_iterations,
            "mu_strategy": "adaptive",
            "tol": 0.01 * self.tolerance,
            "acceptable_tol": 1e10,
            "acceptable_iter": 5,
            "acceptable_constr_viol_tol": 0.1 * self.violation,
            "acceptable_dual_inf_tol": 1e10,
            "acceptable_compl_inf_tol": 1e10,
            "acceptable_obj_change_tol": self.tolerance,
        }


class _Search:
    """What IPOPT calls, in scaled host variables; the last point it took is kept for an interruption."""

    def __init__(self, problem: Problem, x: Array, callback: Callback | None) -> None:
        self.problem, self.callback, self.beside = problem, callback, x
        self.scale: Floats = to_numpy(problem.scale).astype(np.float64)
        self.z: Floats = to_numpy(x).astype(np.float64) / self.scale
        self.history: list[float] = []
        self.error: BaseException | None = None
        self._key = b""
        self._point: Point | None = None

    def run(self, options: dict[str, Any]) -> Status:
        """Search; return why IPOPT stopped, or raise what a callback raised."""
        import ipyopt

        problem, count, rows = self.problem, self.scale.size, len(self.problem.constraint_terms)
        bounds = [
            self._finite(problem.variables.lower) / self.scale,
            self._finite(problem.variables.upper) / self.scale,
        ]
        ends = np.asarray([constraint.bounds for constraint in problem.term_constraints]).reshape(rows, 2)
        ends = np.clip(ends, -_UNBOUNDED, _UNBOUNDED)
        entries = (np.repeat(np.arange(rows), count), np.tile(np.arange(count), rows))
        make: Any = ipyopt.Problem
        nlp = make(
            count, *bounds, rows, ends[:, 0].copy(), ends[:, 1].copy(), entries, ([], []),
            self._safe(self.cost, 0.0), self._safe(self.gradient), self._safe(self.values), self._safe(self.jacobian),
            intermediate_callback=self._safe(self.after_iteration, False),
            ipopt_options=options,
        )  # fmt: skip
        z = self.z.copy()
        _, _, code = nlp.solve(z)
        if isinstance(self.error, KeyboardInterrupt):
            return Status.INTERRUPTED
        if self.error is not None:
            raise self.error
        self.z = z
        return _STATUS.get(int(code), Status.STALLED)

    def cost(self, z: Floats) -> float:
        point = self._at(z)
        return checked_value(self.problem, point, scalar(point.value))

    def gradient(self, z: Floats, out: Floats) -> None:
        out[:] = to_numpy(self._at(z).gradient).astype(np.float64) * self.scale
        self.z = np.array(z)

    def values(self, z: Floats, out: Floats) -> None:
        out[:] = to_numpy(self.problem.constraint_values(self._at(z)))

    def jacobian(self, z: Floats, out: Floats) -> None:
        out[:] = (to_numpy(self.problem.constraint_jacobian(self._at(z))).astype(np.float64) * self.scale).reshape(-1)

    def after_iteration(self, mode: int, iteration: int, value: float, *_: Any) -> bool:
        if iteration == 0:
            return True
        self.history.append(float(value))
        if self.callback is None:
            return True
        told = Progress(len(self.history), float(value), like(self.z * self.scale, self.beside))
        return self.callback(told) is not True

    def _at(self, z: Floats) -> Point:
        key = z.tobytes()
        if self._point is None or key != self._key:
            self._point, self._key = self.problem.at(like(z * self.scale, self.beside)), key
        return self._point

    def _safe(self, call: Any, instead: Any = None) -> Any:
        """Return the call, made harmless: after an error, which is kept, it does nothing and the search is ended.

        Why: IPOPT's own code goes on with an exception pending, and the next call of Python fails for no reason.
        """

        def kept(*given: Any) -> Any:
            if self.error is not None:
                return instead
            try:
                return call(*given)
            except BaseException as error:
                self.error = error
                return instead

        return kept

    def _finite(self, bound: Any) -> Floats:
        whole = np.broadcast_to(np.asarray(to_numpy(bound), dtype=np.float64), self.scale.shape)
        return np.clip(whole, -_UNBOUNDED, _UNBOUNDED)
