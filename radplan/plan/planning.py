"""From goals, or from given variables, to a plan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from radplan.arrays import Array, to_numpy
from radplan.beams.beam import Beams
from radplan.engines.base import Machine
from radplan.errors import InputError
from radplan.influence import ForwardModel, Scenarios
from radplan.influence.given import checked_variables, on_device
from radplan.optim.constraints import Constraint
from radplan.optim.goals import Goal
from radplan.optim.objectives import SquaredUnderdosing
from radplan.optim.problem import Problem, checked_fractions, checked_terms
from radplan.optim.solvers import SOLVERS, Solution, Solver, Status
from radplan.optim.solvers.base import Callback, Progress
from radplan.patient.patient import Patient
from radplan.plan.course import Plan
from radplan.plan.keeping import as_metrics_read
from radplan.plan.prescribed import dose_floor, floored, prescribed_quantity
from radplan.plan.robustness import in_scenarios
from radplan.progress import expected_iterations, listening, report
from radplan.quantities.base import QUANTITIES, Quantity

DEFAULT_FRACTIONS = 30
"""What a course has when neither the caller nor the patient says."""


def optimize(
    model: ForwardModel,
    goals: Sequence[Goal],
    patient: Patient,
    fractions: int | None = None,
    solver: Solver | str | None = None,
    constraints: Sequence[Constraint] = (),
    robust: str | None = None,
    start: Plan | ArrayLike | None = None,
    progress: Callback | bool | None = None,
    beams: Beams | None = None,
    background: ArrayLike | None = None,
) -> Plan:
    """Return the plan that serves the goals best.

    Ratios such as LET depend on where a search starts and say nothing of how much dose there is. When goals or
    constraints look at one and no start is given, the goals of doses are served first and the search goes on from
    there; without such goals it begins with equal weights that bring the targets to the patient's prescription. A ratio
    that is asked for by its name takes 1 % of the prescription per fraction as its floor.

    Parameters
    ----------
    model : ForwardModel
        What gives dose, such as a `Dij`.
    goals : sequence of Goal
        At least one; levels are course totals.
    patient : Patient
        Whose structures the goals name.
    fractions : int, optional
        Number of fractions; the patient's, or 30, when left out.
    solver : Solver or str, optional
        A solver, or its name for default options; otherwise the projected L-BFGS, within an augmented Lagrangian
        where there are constraints.
    constraints : sequence of Constraint
        What must hold. Bounded metrics are read again at the end, as `Plan.metrics` reads them: where they are off by
        more than the solver's `violation`, the status is INFEASIBLE and `plan.solution.advice` says by how much, and
        what to relax.
    robust : "composite", optional
        Optimise the worst scenario of the sum of all goals.
    start : Plan or array of shape (count,), optional
        Where to begin: an earlier plan of the same variables, or variables.
    progress : bool or callable, optional
        A callable is told the solver's `Progress` after each iteration and ends the search by returning True; True
        shows a bar, False nothing; left out, a bar is shown in a terminal or a notebook. A KeyboardInterrupt ends the
        search, too, with the best so far.
    beams : Beams, optional
        The beams of the model, for figures, where it does not know them itself.
    background : array of shape (nz, ny, nx), optional
        Dose of an earlier plan, a course total on the dose grid [Gy]: goals and constraints see the sum of both.

    Raises
    ------
    InputError
        A goal, the start, the background or a name does not fit.
    """
    usual = "augmented_lagrangian" if constraints else "lbfgs"
    chosen = SOLVERS.get(solver)() if isinstance(solver, str) else (solver or SOLVERS.get(usual)())
    earlier = None if background is None else np.asarray(background, dtype=np.float64)
    count = checked_fractions(_fractions(fractions, patient))
    goals, constraints = checked_terms(goals, constraints, robust)
    floor = dose_floor(patient, count)
    wished = tuple(replace(goal, quantity=floored(goal.quantity, floor, model.images)) for goal in goals)
    kept = tuple(replace(entry, quantity=floored(entry.quantity, floor, model.images)) for entry in constraints)
    course = _Course(model, patient, count, kept, robust, earlier)
    problem = course.problem(wished, kept)
    with listening(progress if isinstance(progress, bool) else None):
        solution = _searched(course, problem, wished, chosen, start, progress)
        plan = Plan(
            x=to_numpy(solution.x),
            model=model,
            patient=patient,
            fractions=count,
            goals=wished,
            constraints=kept,
            solution=solution,
            given_beams=beams,
            background=earlier,
            solver=chosen,
            robust=robust,
        )
        told = progress if callable(progress) else None
        return as_metrics_read(plan, problem, chosen, _reporting(chosen, told)) if solution.kept else plan


def _searched(
    course: _Course,
    problem: Problem,
    goals: Sequence[Goal],
    solver: Solver,
    start: Plan | ArrayLike | None,
    progress: Callback | bool | None,
) -> Solution:
    """Return where the search ends: from a given start, or from the goals of doses where there are ratios."""
    told = progress if callable(progress) else None
    if start is not None:
        given = start.x if isinstance(start, Plan) else start
        first: Array | Solution | None = on_device(checked_variables(given, course.model), course.model)
    else:
        first = course.dose_first(goals, solver, _reporting(solver, told))
    if isinstance(first, Solution) and first.status in (Status.INTERRUPTED, Status.STOPPED):
        return first
    begin = first.x if isinstance(first, Solution) else first
    return solver.solve(problem, x0=begin, callback=_reporting(solver, told))


def _reporting(solver: Solver, told: Callback | None) -> Callback:
    """Return a callback that reports each iteration to whoever listens, and asks `told` whether to go on."""
    options = solver.__dict__
    limit = float(options.get("max_iterations", 500))
    tolerance = float(options.get("tolerance", 1e-5))
    history: list[float] = []

    def callback(progress: Progress) -> object:
        history.append(progress.value)
        total = expected_iterations(history, tolerance, limit)
        report("optimise", progress.iteration, total, f"cost {progress.value:.5g}")
        return None if told is None else told(progress)

    return callback


@dataclass(frozen=True, eq=False)
class _Course:
    """What all problems of one plan share."""

    model: ForwardModel
    patient: Patient
    fractions: int
    constraints: tuple[Constraint, ...]
    robust: str | None
    background: NDArray[Any] | None

    def problem(self, goals: Sequence[Goal], constraints: Sequence[Constraint]) -> Problem:
        return Problem(
            self.model,
            goals,
            self.patient,
            self.fractions,
            constraints,
            robust=self.robust,
            background=self.background,
        )

    def dose_first(self, goals: Sequence[Goal], solver: Solver, progress: Callback | None) -> Solution | Array | None:
        """Return where a search with ratios among its goals begins; None where there are none, or nothing to go by."""
        terms: tuple[Goal | Constraint, ...] = (*goals, *self.constraints)
        if all(_adds_up(term.quantity) for term in terms) or not self.model.linear:
            return None
        doses = [goal for goal in goals if _adds_up(goal.quantity) and goal.weight > 0.0]
        if any(goal.objective.pushes != "down" for goal in doses):
            problem = self.problem(doses, [entry for entry in self.constraints if _adds_up(entry.quantity)])
            return solver.solve(problem, callback=progress)
        level, targets = self.patient.prescription, self.patient.target_names
        if level is None or not targets:
            raise InputError(
                "the goals ask for ratios such as LET, but for no dose, and the patient has no prescription to start "
                "from: add a goal of dose on the target, or give start="
            )
        quantity = prescribed_quantity((), targets, self.model)
        uniform = [Goal(name, SquaredUnderdosing(level), quantity=quantity) for name in targets]
        return Problem(self.model, uniform, self.patient, self.fractions).start


def _adds_up(quantity: str | Quantity) -> bool:
    held = quantity if isinstance(quantity, Quantity) else QUANTITIES.get(quantity)
    return bool(held.additive)


def evaluate(
    model: ForwardModel,
    x: ArrayLike,
    patient: Patient,
    fractions: int | None = None,
    beams: Beams | None = None,
    scenarios: Scenarios | None = None,
    machine: Machine | None = None,
) -> Plan:
    """Return the plan of given variables: the forward dose, nothing optimised.

    Parameters
    ----------
    model : ForwardModel
        What gives dose.
    x : array of shape (count,)
        Its variables.
    patient : Patient
        Whose structures are judged.
    fractions : int, optional
        Number of fractions; the patient's, or 30, when left out.
    beams : Beams, optional
        The beams of the model, for figures, where it does not know them itself.
    scenarios : Scenarios, optional
        Cases to calculate the dose in, on the fly, for a `Dij` that `radplan.dose_influence` made:
        `radplan.plan.scenario_metrics` and `radplan.plan.dvh_bands` tell what becomes of the plan there.
    machine : Machine, optional
        What the model was made for, where that is none of the built-in ones; needed for scenarios alone.

    Raises
    ------
    InputError
        The number of variables is wrong, or one is NaN, infinite or out of bounds; scenarios are asked for of a model
        that does not know how it was calculated.
    """
    return Plan(
        x=np.asarray(to_numpy(x), dtype=np.float64),
        model=model if scenarios is None else in_scenarios(model, patient, scenarios, machine),
        patient=patient,
        fractions=_fractions(fractions, patient),
        given_beams=beams,
    )


def _fractions(given: int | None, patient: Patient) -> int:
    return given if given is not None else (patient.fractions or DEFAULT_FRACTIONS)
