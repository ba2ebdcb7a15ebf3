"""Least amounts that can be delivered: variables that are zero or at least so much, such as spots of a scanned beam."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

from radplan.arrays import Array, like, namespace, scalar
from radplan.errors import InputError
from radplan.optim.problem import Problem
from radplan.optim.solvers import ProjectedLBFGS, Solution, Solver

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class MinimumReport:
    """What it took to make variables deliverable.

    Parameters
    ----------
    count : int
        Number of variables.
    removed : int
        Variables that were positive and are now zero.
    raised : int
        Variables below their minimum that were kept, and now have at least that.
    used : int
        Variables that are positive now.
    value_before, value_after : float
        The cost of the given variables and of the deliverable ones.

    >>> print(MinimumReport(100, 30, 5, 60, 1.0, 1.02))
    60 of 100 spots are used: 30 below half their minimum were removed, 5 raised to it; the cost went from 1 to 1.02
    """

    count: int
    removed: int
    raised: int
    used: int
    value_before: float
    value_after: float

    def __str__(self) -> str:
        return (
            f"{self.used} of {self.count} spots are used: {self.removed} below half their minimum were removed, "
            f"{self.raised} raised to it; the cost went from {self.value_before:.6g} to {self.value_after:.6g}"
        )


def enforce_minimum(problem: Problem, x: Array, solver: Solver | None = None) -> tuple[Solution, MinimumReport]:
    """Return a solution whose every variable is zero or at least its minimum, found from one that is not.

    Variables below half their minimum are set to zero and stay there; all others are bounded by their minimum from
    below, and the problem is solved again from there. `Variables.minimum` says what the minima are.

    Parameters
    ----------
    problem : Problem
        What the variables were found for.
    x : array of shape (variables,)
        Where it ended, on the device of the model.
    solver : Solver, optional
        Solves again; the projected L-BFGS when left out.

    Raises
    ------
    InputError
        When a minimum lies above the variable's upper bound, or no variable reaches half its minimum.

    >>> import numpy as np
    >>> from radplan.geometry.grid import Grid
    >>> from radplan.influence import Dij
    >>> from radplan.optim.goals import Goal
    >>> from radplan.optim.objectives import SquaredDeviation
    >>> dij = Dij.from_matrices({"physical_dose": np.eye(2)}, Grid((1, 1, 2), (1, 1, 1), (0, 0, 0)))
    >>> dij = replace(dij, variables=replace(dij.variables, minimum=1.0))
    >>> goals = [Goal("a", SquaredDeviation(0.8)), Goal("b", SquaredDeviation(0.2))]
    >>> problem = Problem(dij, goals, weights={"a": ([0], None), "b": ([1], None)})
    >>> solution, report = enforce_minimum(problem, np.asarray([0.8, 0.2]))
    >>> solution.x.tolist(), report.removed, report.raised
    ([1.0, 0.0], 1, 1)
    """
    xp, limits = namespace(x), problem.variables
    least = x * 0.0 + like(limits.minimum, x)
    lower, upper = x * 0.0 + like(limits.lower, x), x * 0.0 + like(limits.upper, x)
    if scalar(xp.max(least - upper)) > 0.0:
        raise InputError("some minima lie above the upper bounds of their variables: nothing could be delivered there")
    kept = x >= 0.5 * least
    kept = xp.logical_and(kept, xp.logical_or(x > 0.0, least <= 0.0))
    if not scalar(xp.sum(xp.astype(xp.logical_and(kept, x > 0.0), x.dtype))) > 0.0:
        raise InputError(
            "no variable reaches half its minimum: give more dose per fraction, fewer beams, or spots farther apart"
        )
    nothing = xp.zeros_like(x)
    bounded = problem.bounded(xp.where(kept, xp.maximum(lower, least), nothing), xp.where(kept, upper, nothing))
    first = bounded.variables.project(x)
    solution = (solver or ProjectedLBFGS()).solve(bounded, x0=first)
    exact = bounded.variables.project(solution.x)
    final = replace(solution, x=exact, value=scalar(problem.value_and_gradient(exact)[0]))
    report = MinimumReport(
        count=int(x.shape[0]),
        removed=_count(xp.logical_and(x > 0.0, xp.logical_not(kept))),
        raised=_count(xp.logical_and(kept, xp.logical_and(x > 0.0, x < least))),
        used=_count(exact > 0.0),
        value_before=scalar(problem.value_and_gradient(x)[0]),
        value_after=final.value,
    )
    logger.info("%s", report)
    return final, report


def _count(mask: Array) -> int:
    xp = namespace(mask)
    return int(scalar(xp.sum(xp.astype(mask, xp.int64))))
