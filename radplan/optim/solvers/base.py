"""What a solver promises: a feasible point, why it stopped there, and the way it went."""

from __future__ import annotations

import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import ClassVar, Self

from radplan.arrays import Array, all_finite, like, to_numpy
from radplan.errors import CalculationError, InputError
from radplan.optim.constraints import Kept, relaxation
from radplan.optim.points import CostFunction, Point
from radplan.optim.problem import Problem
from radplan.registry import Registry

logger = logging.getLogger(__name__)


class Status(Enum):
    """Why a solver stopped; `advice` says what to make of it.

    >>> Status.CONVERGED.value
    'converged'
    """

    CONVERGED = "converged"
    ITERATION_LIMIT = "iteration limit reached"
    STALLED = "no further progress"
    INFEASIBLE = "constraints not met"
    STOPPED = "stopped by the callback"
    INTERRUPTED = "interrupted"

    @property
    def advice(self) -> str:
        """What to do next, in a sentence."""
        return _ADVICE[self]


_ADVICE = {
    Status.CONVERGED: "The goals are balanced: change weights or references to move the plan.",
    Status.ITERATION_LIMIT: "Still improving: raise max_iterations or start again from this plan.",
    Status.STALLED: "No further descent in this precision: the plan is as good as it gets; float64 may give more.",
    Status.INFEASIBLE: "Constraints contradict each other or what the beams can do: loosen one, or state it as a goal.",
    Status.STOPPED: "The best point so far is returned: start again from this plan to go on.",
    Status.INTERRUPTED: "The best point so far is returned: start again from this plan to go on.",
}


@dataclass(frozen=True)
class Progress:
    """What a callback is told after each iteration; it ends the search by returning True.

    Parameters
    ----------
    iteration : int
        Counted from 1.
    value : float
        The cost now.
    x : array of shape (variables,)
        The variables now, on the device.
    """

    iteration: int
    value: float
    x: Array


Callback = Callable[[Progress], object]


@dataclass(frozen=True, eq=False)
class Solution:
    """Where a solver ended.

    Parameters
    ----------
    x : array of shape (variables,)
        The best feasible point found, on the device of the model.
    value : float
        The cost there.
    status : Status
        Why the solver stopped.
    history : tuple of float
        The cost after each iteration.
    start_value : float
        The cost at the start.
    kept : tuple of Kept
        What the constraints' metrics are there, one for each constraint.
    violation : float
        By how much one may be off its bounds [its own unit].
    reason : str
        What made a search count as converged, in words; empty where the status says all.
    """

    x: Array
    value: float
    status: Status
    history: tuple[float, ...]
    start_value: float
    kept: tuple[Kept, ...] = ()
    violation: float = 0.0
    reason: str = ""

    @property
    def missed(self) -> tuple[Kept, ...]:
        """The constraints that are off by more than is allowed."""
        return tuple(entry for entry in self.kept if abs(entry.excess) > entry.allowance(self.violation))

    @property
    def advice(self) -> str:
        """What to do next: the status's advice, or what was missed, by how much, and what to relax."""
        return relaxation(self.kept, self.violation) if self.missed else self.status.advice

    @property
    def iterations(self) -> int:
        """Number of iterations."""
        return len(self.history)


class Solver(ABC):
    """A search for the variables with the least cost, within their bounds.

    A concrete solver is a frozen dataclass of options, registered in `SOLVERS`. It keeps no state between calls.
    """

    name: ClassVar[str]

    @abstractmethod
    def solve(self, problem: Problem, x0: Array | None = None, callback: Callback | None = None) -> Solution:
        """Return the best point found from `x0`; an interruption by the keyboard returns the best so far.

        Parameters
        ----------
        problem : Problem
            What to minimise.
        x0 : array of shape (variables,), optional
            Where to start, on the host or on the device; the problem's own start when left out.
        callback : callable, optional
            Called with a `Progress` after each iteration; ends the search by returning True.

        Raises
        ------
        InputError
            When `x0` does not fit, or the solver does not take constraints and there are some.
        CalculationError
            When a goal becomes NaN or infinite.
        """

    @classmethod
    def examples(cls) -> list[Self]:
        """Return instances for the conformance tests; by default the one with all options at their defaults."""
        return [cls()]


SOLVERS: Registry[Solver] = Registry("solver", Solver)  # type: ignore[type-abstract]
"""All solvers by name; entry points of the group ``radplan.solver`` join on first use."""


def first_point(problem: CostFunction, x0: Array | None) -> Array:
    """Return the checked start on the device of the problem, projected into the bounds.

    Raises
    ------
    InputError
        When `x0` has another shape than the variables, or holds NaN.
    """
    if x0 is None:
        return problem.variables.project(problem.start)
    host = to_numpy(x0)
    if host.shape != (problem.variables.count,):
        raise InputError(f"x0 must have shape ({problem.variables.count},), got {host.shape}")
    x = like(x0, problem.start)
    if not all_finite(x):
        raise InputError("x0 holds NaN or infinite values")
    return problem.variables.project(x)


def checked_value(problem: CostFunction, point: Point, value: float) -> float:
    """Return the value of a point, or raise `CalculationError` when it is NaN or infinite, naming the goals."""
    if not math.isfinite(value):
        problem.check_finite(point)
        raise CalculationError(f"the cost is {value}; no single goal is: are the weights of the goals too large?")
    return value


def last_value(problem: CostFunction, x: Array, status: Status) -> tuple[float, Status]:
    """Return the cost at the end of a search and its status; an interruption costs an evaluation, not the result.

    Raises
    ------
    CalculationError
        When the cost is NaN or infinite.
    """
    try:
        point = problem.at(x)
    except KeyboardInterrupt:
        point, status = problem.at(x), Status.INTERRUPTED
    return checked_value(problem, point, float(to_numpy(point.value))), status


def last_judged(problem: Problem, x: Array, status: Status) -> tuple[tuple[Kept, ...], Status]:
    """Return what bounded metrics are at the end of a search and its status; an interruption costs an evaluation."""
    try:
        return problem.judged(x), status
    except KeyboardInterrupt:
        return problem.judged(x), Status.INTERRUPTED


def refuse_constraints(solver: Solver, problem: CostFunction) -> None:
    """Raise `InputError` when the problem has constraints, which the solver would ignore."""
    if problem.constraints:
        labels = "; ".join(constraint.label for constraint in problem.constraints)
        raise InputError(
            f"the solver {solver.name!r} takes bounds only, not the {len(problem.constraints)} constraints given "
            f"({labels}): take 'augmented_lagrangian', or state them as goals with a high weight"
        )
