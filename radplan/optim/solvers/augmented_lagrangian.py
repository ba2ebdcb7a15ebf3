"""Constraints by an augmented Lagrangian around the default solver, on the device of the model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from radplan.arrays import Array, like, to_numpy
from radplan.errors import InputError
from radplan.optim.augmented import AugmentedProblem
from radplan.optim.problem import Problem
from radplan.optim.solvers.base import SOLVERS, Callback, Progress, Solution, Solver, Status, first_point, last_value
from radplan.optim.solvers.projected_lbfgs import ProjectedLBFGS

Floats = npt.NDArray[np.float64]

_ROUNDS = 20
"""Largest number of multiplier updates."""
_FIRST_TOLERANCE = 1e-3
"""Tolerance of the first search; each one is ten times finer than the one before."""
_PROGRESS = 0.25
"""A penalty that does not bring the violation down to this share of the last one is raised tenfold."""


@SOLVERS.register
@dataclass(frozen=True)
class AugmentedLagrangian(Solver):
    r"""Projected L-BFGS on :math:`f(x) + \sum_i \frac{\rho_i}{2} (s_i - \mathrm{clip}(s_i, l_i, u_i))^2`.

    With :math:`s = c(x) + \lambda/\rho`. The first search leaves the constraints aside; then multipliers take over what
    penalties held, :math:`\lambda \leftarrow \rho (s - \mathrm{clip}(s))`, and penalties grow only where violations do
    not shrink. Where nothing is violated that is the default solver. The cost in the history and in the callback
    includes the penalties, so that it may rise when they change; the value of the solution does not.

    Parameters
    ----------
    max_iterations : int
        Largest number of iterations of all searches together, >= 1.
    tolerance, memory
        As of `ProjectedLBFGS`.
    violation : float
        How far a constraint may be off at the end, over the size of its bound (or 1, where that is larger), > 0.

    Raises
    ------
    InputError
        When an option is out of range.

    Source: Andreani, Birgin, Martinez and Schuverdt, SIAM J. Optim. 18 (2008) 1286 (the Algencan method).

    >>> AugmentedLagrangian(violation=0.01).max_iterations
    1000
    """

    max_iterations: int = 1000
    tolerance: float = 1e-5
    memory: int = 20
    violation: float = 1e-3

    name = "augmented_lagrangian"

    def __post_init__(self) -> None:
        self._search(self.max_iterations, self.tolerance)
        if not 0.0 < self.violation < 1.0:
            raise InputError(f"{self.name}: violation must lie in (0, 1), got {self.violation!r}")

    def solve(self, problem: Problem, x0: Array | None = None, callback: Callback | None = None) -> Solution:
        if not problem.constraints:
            return self._search(self.max_iterations, self.tolerance).solve(problem, x0, callback)
        x, bounds = first_point(problem, x0), _Bounds.of(problem)
        multipliers, penalties = np.zeros(bounds.size.size), np.zeros(bounds.size.size)
        tolerance, worst, start_value = max(self.tolerance, _FIRST_TOLERANCE), np.inf, None
        history: list[float] = []
        status = Status.INFEASIBLE
        try:
            for _ in range(_ROUNDS):
                left = self.max_iterations - len(history)
                if left < 1:
                    status = Status.ITERATION_LIMIT
                    break
                found = self._search(left, tolerance).solve(
                    AugmentedProblem(problem, like(multipliers, x), like(penalties, x)),
                    x,
                    _counted(callback, len(history)),
                )
                x, history = found.x, [*history, *found.history]
                start_value = found.start_value if start_value is None else start_value
                status = found.status
                values = to_numpy(problem.constraint_values(x)).astype(np.float64)
                off = bounds.distance(values, multipliers, penalties)
                if status in (Status.STOPPED, Status.INTERRUPTED, Status.ITERATION_LIMIT):
                    break
                if np.max(off) <= self.violation and tolerance <= self.tolerance:
                    break
                if not penalties.any() and np.max(off) > self.violation:
                    penalties = _first_penalties(found, off, bounds)
                elif penalties.any():
                    multipliers = penalties * bounds.beyond(values + multipliers / penalties)
                    penalties = penalties * np.where(off > max(_PROGRESS * worst, self.violation), 10.0, 1.0)
                    worst = float(np.max(off))
                tolerance = max(0.1 * tolerance, self.tolerance)
            else:
                status = Status.INFEASIBLE
        except KeyboardInterrupt:
            status = Status.INTERRUPTED
        value, status = last_value(problem, x, status)
        return Solution(x, value, status, tuple(history), value if start_value is None else start_value)

    def _search(self, iterations: int, tolerance: float) -> ProjectedLBFGS:
        return ProjectedLBFGS(max_iterations=iterations, tolerance=tolerance, memory=self.memory)


@dataclass(frozen=True, eq=False)
class _Bounds:
    """Bounds of the constraints on the host, and the sizes (m,) their violations are judged by."""

    lower: Floats
    upper: Floats
    size: Floats

    @classmethod
    def of(cls, problem: Problem) -> _Bounds:
        ends = np.asarray([constraint.bounds for constraint in problem.constraints], dtype=np.float64)
        known = np.where(np.isfinite(ends), np.abs(ends), 0.0)
        return cls(ends[:, 0], ends[:, 1], np.maximum(known.max(axis=1), 1.0))

    def beyond(self, values: Floats) -> Floats:
        """Return how far values (m,) are outside, with sign."""
        outside: Floats = values - np.clip(values, self.lower, self.upper)
        return outside

    def distance(self, values: Floats, multipliers: Floats, penalties: Floats) -> Floats:
        """Return by how much constraints are violated, or held by a multiplier without being met, over their size."""
        shift = np.divide(multipliers, penalties, out=np.zeros_like(values), where=penalties > 0.0)
        off: Floats = np.abs(values - np.clip(values + shift, self.lower, self.upper)) / self.size
        return off


def _first_penalties(found: Solution, off: Floats, bounds: _Bounds) -> Floats:
    """Return penalties (m,) that make the violations there as dear as the cost."""
    cost = max(abs(found.value), 1e-3 * abs(found.start_value)) or 1.0
    penalties: Floats = 2.0 * cost / np.sum(off**2) / bounds.size**2
    return penalties


def _counted(callback: Callback | None, before: int) -> Callable[[Progress], object] | None:
    """Return a callback that counts the iterations of earlier searches, too."""
    if callback is None:
        return None
    return lambda told: callback(replace(told, iteration=told.iteration + before))
