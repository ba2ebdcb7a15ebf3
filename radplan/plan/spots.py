"""Plans of spots that a machine can deliver: none has fewer particles than the monitor can count, but for zero."""

from __future__ import annotations

from dataclasses import replace

from radplan.arrays import to_numpy
from radplan.errors import InputError
from radplan.optim.minimum import MinimumReport, enforce_minimum
from radplan.optim.problem import Problem
from radplan.optim.solvers import Solver
from radplan.optim.variables import on_device
from radplan.plan.course import Plan


def deliverable(plan: Plan, solver: Solver | None = None, robust: str | None = None) -> tuple[Plan, MinimumReport]:
    """Return a plan without spots below the machine's minimum, optimised again, and what that took.

    Spots below half their minimum go, the others keep at least the minimum; see `radplan.optim.minimum`.

    Parameters
    ----------
    plan : Plan
        As `radplan.optimize` made it, with its goals.
    solver : Solver, optional
        Solves again; the plan's own when left out.
    robust : "composite", optional
        As it was given to `radplan.optimize`.

    Raises
    ------
    InputError
        When the plan has no goals, or no spot reaches half its minimum.
    """
    if not plan.goals:
        raise InputError("a plan without goals cannot be optimised again: make it with radplan.optimize")
    problem = Problem(
        plan.model,
        plan.goals,
        plan.patient,
        plan.fractions,
        plan.constraints,
        robust=robust,
        background=plan.background,
    )
    solution, report = enforce_minimum(problem, on_device(plan.x, plan.model), solver or plan.solver)
    return replace(plan, x=to_numpy(solution.x), solution=solution), report
