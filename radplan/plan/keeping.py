"""Constraints as the plan's metrics read them: what a solver kept is read again and, where it differs, solved again."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from radplan.arrays import to_numpy
from radplan.influence.given import on_device
from radplan.optim.constraints import Constraint, Kept, worst_kept
from radplan.optim.problem import Problem
from radplan.optim.solvers import Solution, Solver, Status
from radplan.optim.solvers.base import Callback
from radplan.plan.course import Plan
from radplan.plan.robustness import scenario_metrics

_ROUNDS = 4
"""Largest number of times that a problem is solved again with bounds moved by what the metrics differ."""


def metrics_kept(plan: Plan) -> tuple[Kept, ...]:
    """Return what each bounded metric of a plan is, as `Plan.metrics` reads it; constraints on objectives are left out.

    >>> from radplan.plan.keeping import metrics_kept
    """
    return tuple(_metric_kept(plan, constraint) for constraint in plan.constraints if constraint.metric is not None)


def _metric_kept(plan: Plan, constraint: Constraint) -> Kept:
    structure, name = constraint.structure, str(constraint.metric)
    if constraint.robust == "nominal":
        return Kept(constraint, plan.metrics(constraint.quantity, [structure], [name])[structure][name])
    table = scenario_metrics(plan, constraint.quantity, [structure], [name])
    values = [rows[structure][name] for rows in table.values()]
    if constraint.robust == "worst":
        return worst_kept([Kept(constraint, value) for value in values])
    return Kept(constraint, float(np.dot(plan.model.scenarios.probabilities, values)))


def as_metrics_read(plan: Plan, problem: Problem, solver: Solver, progress: Callback | None = None) -> Plan:
    """Return a plan whose constraints hold as its metrics read them, or whose solution says by how much they do not.

    A solver sees a structure on dose voxels; metrics read it on the finer voxels it is drawn on. Where the two differ
    by more than is allowed, bounds are moved by the difference and the problem is solved again from there.

    Parameters
    ----------
    plan : Plan
        As it came from the solver.
    problem : Problem
        What was solved.
    solver : Solver
        Solves again.
    progress : callable, optional
        Told the `Progress` of these searches, too.
    """
    if plan.solution is None or not any(constraint.metric for constraint in plan.constraints):
        return plan
    stated, solution = plan.constraints, plan.solution
    iterations = solution.history
    for _ in range(_ROUNDS):
        read = _read(plan, solution)
        if solution.status not in (Status.CONVERGED, Status.STALLED) or not _missed(read, solution):
            break
        moved = [_moved(seen, told) for seen, told in zip(solution.kept, read, strict=True)]
        again = solver.solve(problem.bounded_by(moved), on_device(plan.x, plan.model), progress)
        iterations += again.history
        solution = replace(again, history=iterations)
        plan = replace(plan, x=to_numpy(again.x))
    read = _read(plan, solution)
    status = solution.status
    if status in (Status.CONVERGED, Status.STALLED, Status.INFEASIBLE):
        missed = _missed(read, solution)
        status = Status.INFEASIBLE if missed else (Status.CONVERGED if status is Status.INFEASIBLE else status)
    return replace(plan, constraints=stated, solution=replace(solution, kept=read, status=status))


def _read(plan: Plan, solution: Solution) -> tuple[Kept, ...]:
    """Return what the stated constraints are: as metrics read them, else as the solver saw them."""
    read = iter(metrics_kept(plan))
    pairs = zip(plan.constraints, solution.kept, strict=True)
    return tuple(next(read) if stated.metric else Kept(stated, seen.value) for stated, seen in pairs)


def _missed(read: tuple[Kept, ...], solution: Solution) -> bool:
    return bool(replace(solution, kept=read).missed)


def _moved(seen: Kept, told: Kept) -> Constraint:
    """Return the constraint as the solver had it, its bounds moved by what the metric is off its stated bound."""
    constraint = seen.constraint
    if told.excess == 0.0:
        return constraint
    low, high = constraint.lower, constraint.upper
    if told.excess > 0.0 and high is not None:
        high = max(high - told.excess, low if low is not None else high - told.excess)
    if told.excess < 0.0 and low is not None:
        low = min(low - told.excess, high if high is not None else low - told.excess)
    return replace(constraint, lower=low, upper=high)
