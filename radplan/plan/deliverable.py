"""Plans of spots that a machine can deliver: none has fewer particles than the monitor can count, but for zero."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from radplan.analysis.scaling import find_factor
from radplan.arrays import to_numpy
from radplan.delivery.minimum import MinimumReport, enforce_minimum
from radplan.errors import InputError
from radplan.influence.given import on_device, variable_minimum
from radplan.optim.problem import Problem
from radplan.optim.solvers import Solver
from radplan.plan.course import Plan
from radplan.quantities.base import Quantity

logger = logging.getLogger(__name__)


def deliverable(plan: Plan, solver: Solver | None = None) -> tuple[Plan, MinimumReport]:
    """Return a plan without spots below the machine's minimum, optimised again, and what that took.

    Spots below half their minimum go, the others keep at least the minimum; see `radplan.delivery.minimum`.
    The goals are served again, so that the plan is not normalised any more: `deliverable_at` does both.

    Parameters
    ----------
    plan : Plan
        As `radplan.optimize` made it, with its goals.
    solver : Solver, optional
        Solves again; the plan's own when left out.

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
        robust=plan.robust,
        background=plan.background,
    )
    solution, report = enforce_minimum(problem, on_device(plan.x, plan.model), solver or plan.solver)
    return replace(plan, x=to_numpy(solution.x), solution=solution, normalization=None), report


def deliverable_at(
    plan: Plan,
    structure: str,
    quantity: str | Quantity = "physical_dose",
    solver: Solver | None = None,
    **level: float,
) -> tuple[Plan, MinimumReport]:
    r"""Return a plan without spots below the machine's minimum in which one metric of a structure takes a level.

    The plan is scaled to the level, made `deliverable`, and brought to the level again by :math:`x_i \to \max(f x_i,
    m_i)` for its spots, with the minima m and one factor f: above 1 that is scaling; below 1 spots stop at their
    minimum and the others give way. Where the level lies below what all spots at their minimum give, that is the plan,
    and its normalisation says what it reaches.

    Parameters
    ----------
    plan : Plan
        As `radplan.optimize` made it, with its goals.
    structure, quantity, **level
        As `Plan.scaled` takes them: where, what, and one metric with its level, as in ``D95=50.0``.
    solver : Solver, optional
        As `deliverable` takes it.

    Raises
    ------
    InputError
        As `deliverable` and `Plan.scaled` raise it.
    CalculationError
        As `Plan.scaled` raises it.
    """
    first = replace(plan, x=plan.x * plan.factor(structure, quantity, **level), normalization=None)
    made, report = deliverable(first, solver)
    if plan.solution is not None and plan.normalization is None:
        report = replace(report, value_before=plan.solution.value)
    if made.factor(structure, quantity, **level) >= 1.0:
        return made.scaled(structure, quantity, **level), report
    return _lowered(made, structure, quantity, level), report


def _lowered(plan: Plan, structure: str, quantity: str | Quantity, level: Mapping[str, float]) -> Plan:
    """Return a deliverable plan with spots lowered to no less than their minima until a metric has a level."""
    ((name, wanted),) = level.items()
    used, least = plan.x > 0.0, variable_minimum(plan.model)

    def lowered(factor: float) -> Plan:
        return replace(plan, x=np.where(used, np.maximum(factor * plan.x, least), 0.0))

    def reached(factor: float) -> float:
        return lowered(factor).metrics(quantity, [structure], [name])[structure][name]

    lowest, label = reached(0.0), f"{structure} {name.replace('_', '.')}"
    if lowest > wanted:
        text = f"{label} = {lowest:.5g} {plan.unit(quantity)}, all spots at their minimum ({wanted:g} was asked for)"
        logger.warning("%s: give more dose per fraction, fewer beams, or spots farther apart", text)
        return replace(lowered(0.0), normalization=text)
    factor = find_factor(reached, wanted, reached(1.0), f"{name} of {structure!r}")
    return replace(lowered(factor), normalization=f"{label} = {wanted:g} {plan.unit(quantity)}")
