"""Constraints by an augmented Lagrangian around the default solver, on the device of the model."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from radplan.arrays import Array, scalar
from radplan.errors import InputError
from radplan.optim.augmented import AugmentedProblem, Hold
from radplan.optim.constraints import Kept
from radplan.optim.points import Point
from radplan.optim.problem import Problem
from radplan.optim.solvers.base import (
    SOLVERS,
    Callback,
    Progress,
    Solution,
    Solver,
    Status,
    first_point,
    last_judged,
    last_value,
)
from radplan.optim.solvers.projected_lbfgs import ProjectedLBFGS

_ROUNDS = 25
"""Largest number of multiplier updates."""
_FIRST_TOLERANCE = 1e-3
"""Tolerance of the first search; each one is ten times finer than the one before."""
_PROGRESS = 0.5
"""A penalty that does not bring the violation down to this share of the last one is raised."""
_RAISE = 5.0
"""By how much it is raised."""
_HOPELESS = 4
"""Rounds without a tenth of progress, penalties growing, after which constraints count as infeasible."""
_SETTLED = 1e-3
"""Change of the cost from one round to the next, relative, below which multipliers have settled."""


@SOLVERS.register
@dataclass(frozen=True)
class AugmentedLagrangian(Solver):
    r"""Projected L-BFGS on :math:`f(x) + \sum_i \frac{\rho_i}{2} (s_i - \mathrm{clip}(s_i, l_i, u_i))^2`.

    With :math:`s = c(x) + \lambda/\rho`. The first search leaves the constraints aside unless a start is given; then
    multipliers take over what penalties held, :math:`\lambda \leftarrow \rho (s - \mathrm{clip}(s))`, and penalties
    grow only where violations do not shrink. Where nothing is violated that is the default solver. The cost in the
    history and in the callback includes the penalties, so that it may rise when they change; the value of the solution
    does not.

    A dose at a volume or a volume at a dose is held voxel by voxel: all but the hottest (coldest) share of the volume
    that may exceed the level are bounded by it, each with a multiplier, and which ones these are is read anew after
    each search. Each choice of voxels is a convex problem whose solutions keep the constraint.

    Parameters
    ----------
    max_iterations : int
        Largest number of iterations of all searches together, >= 1.
    tolerance, memory
        As of `ProjectedLBFGS`.
    violation : float
        By how much a bounded metric may be off at the end, in its own unit (Gy, %), > 0. It is read unsmoothed.
    blocks : bool
        As of `ProjectedLBFGS`; doses that are held voxel by voxel are measured, too.

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
    violation: float = 0.1
    blocks: bool = True

    name = "augmented_lagrangian"

    def __post_init__(self) -> None:
        self._search(self.max_iterations, self.tolerance)
        if not 0.0 < self.violation < math.inf:
            raise InputError(f"{self.name}: violation must be a finite number > 0, got {self.violation!r}")

    def solve(self, problem: Problem, x0: Array | None = None, callback: Callback | None = None) -> Solution:
        if not problem.constraints:
            plain = ProjectedLBFGS(self.max_iterations, self.tolerance, memory=self.memory, blocks=self.blocks)
            return plain.solve(problem, x0, callback)
        x = first_point(problem, x0)
        start_value, _ = last_value(problem, x, Status.CONVERGED)
        rounds = _Rounds(self, problem, x, callback, start_value)
        try:
            status = rounds.run(with_start=x0 is not None)
        except KeyboardInterrupt:
            status = Status.INTERRUPTED
        value, status = last_value(problem, rounds.x, status)
        kept, status = last_judged(problem, rounds.x, status)
        if status is Status.CONVERGED and _worst(kept, self.violation) > 1.0:
            status = Status.INFEASIBLE
        return Solution(rounds.x, value, status, tuple(rounds.history), start_value, kept, self.violation)

    def _search(self, iterations: int, tolerance: float) -> ProjectedLBFGS:
        # Why: multipliers take over what a search ends at, which must be its optimum; the plan changes with them.
        return ProjectedLBFGS(iterations, tolerance, plan_change=0.0, memory=self.memory, blocks=self.blocks)


class _Rounds:
    """Searches one after the other, with multipliers that take over; the last whole one is kept for an interruption."""

    def __init__(
        self, options: AugmentedLagrangian, problem: Problem, x: Array, callback: Callback | None, start_value: float
    ) -> None:
        self.options, self.problem, self.callback = options, problem, callback
        self.x, self.start_value = x, start_value
        self.history: list[float] = []

    def run(self, with_start: bool) -> Status:
        """Return why the rounds ended; where they did is `x`."""
        options, problem = self.options, self.problem
        point, value = problem.at(self.x), self.start_value
        holds = self._holds(point)
        if with_start:
            holds = _with_first_penalties(holds, value, value, self._violations(point, holds))
        tolerance = max(options.tolerance, _FIRST_TOLERANCE)
        worst, hopeless = math.inf, 0
        for _ in range(_ROUNDS):
            left = options.max_iterations - len(self.history)
            if left < 1:
                return Status.ITERATION_LIMIT
            search = options._search(left, tolerance)
            reached = search.solve(AugmentedProblem(problem, holds), self.x, _counted(self.callback, len(self.history)))
            self.x, self.history = reached.x, [*self.history, *reached.history]
            if reached.status in (Status.STOPPED, Status.INTERRUPTED, Status.ITERATION_LIMIT):
                return reached.status
            point = problem.at(self.x)
            before, value = value, scalar(point.value)
            off = _worst(problem.judged(point), options.violation)
            is_held = any(hold.penalty > 0.0 for hold in holds)
            settled = not is_held or abs(value - before) <= _SETTLED * abs(value)
            if off <= 1.0 and tolerance <= options.tolerance and settled:
                return reached.status
            violations = self._violations(point, holds)
            if is_held:
                holds = self._updated(point, holds, violations, worst)
                hopeless = hopeless + 1 if max(violations) > 0.9 * worst and off > 1.0 else 0
                worst = max(violations)
                if hopeless >= _HOPELESS:
                    return Status.INFEASIBLE
            elif off > 1.0:
                holds = _with_first_penalties(self._holds(point), value, self.start_value, violations)
            tolerance = max(0.1 * tolerance, options.tolerance)
        return Status.INFEASIBLE if off > 1.0 else Status.STALLED

    def _holds(self, point: Point) -> tuple[Hold, ...]:
        pairs = zip(self.problem.constraint_terms, self.problem.term_constraints, strict=True)
        margin = 0.5 * self.options.violation
        return tuple(Hold.of(term, own.bounds, point.values_of(term.quantity), margin) for term, own in pairs)

    def _violations(self, point: Point, holds: tuple[Hold, ...]) -> list[float]:
        pairs = zip(self.problem.constraint_terms, holds, strict=True)
        return [hold.violation(term, point.values_of(term.quantity)) for term, hold in pairs]

    def _updated(
        self, point: Point, holds: tuple[Hold, ...], violations: list[float], worst: float
    ) -> tuple[Hold, ...]:
        """Return holds with multipliers brought up to date, and penalties raised where that did not help."""
        margin = 0.5 * self.options.violation
        moved = []
        terms, stated = self.problem.constraint_terms, self.problem.term_constraints
        for term, own, hold, off in zip(terms, stated, holds, violations, strict=True):
            fresh = hold.updated(term, point.values_of(term.quantity), own.bounds, margin)
            slow = off > max(_PROGRESS * worst, 0.2 * margin)
            moved.append(replace(fresh, penalty=hold.penalty * _RAISE) if slow else fresh)
        return tuple(moved)


def _worst(kept: tuple[Kept, ...], violation: float) -> float:
    """Return how far the constraints are off, over what is allowed."""
    return max(abs(entry.excess) / entry.allowance(violation) for entry in kept)


def _with_first_penalties(
    holds: tuple[Hold, ...], value: float, start_value: float, violations: list[float]
) -> tuple[Hold, ...]:
    """Return holds whose penalties make the violations there as dear as the cost, none counted below 1."""
    cost = max(abs(value), 1e-3 * abs(start_value)) or 1.0
    total = sum(off**2 for off in violations)
    return tuple(replace(hold, penalty=2.0 * cost / max(total, 1.0)) for hold in holds)


def _counted(callback: Callback | None, before: int) -> Callable[[Progress], object] | None:
    """Return a callback that counts the iterations of earlier searches, too."""
    if callback is None:
        return None
    return lambda told: callback(replace(told, iteration=told.iteration + before))
