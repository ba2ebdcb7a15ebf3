"""Priorities: goals served one after the other, each kept near what it reached while the next are served."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from radplan.errors import InputError
from radplan.influence import ForwardModel
from radplan.optim.constraints import Constraint
from radplan.optim.goals import Goal
from radplan.optim.solvers import AugmentedLagrangian, Solution, Status
from radplan.patient.patient import Patient
from radplan.plan.course import Plan
from radplan.plan.planning import optimize
from radplan.quantities.base import QUANTITIES, Quantity


@dataclass(frozen=True, eq=False)
class PriorityStep:
    """What one goal of a wish list reached in its turn, and what it was then held at.

    Parameters
    ----------
    goal : Goal
        The goal.
    value : float
        Its objective at the optimum of its turn, unweighted.
    bound : float
        The upper bound it keeps in all later turns.
    solution : Solution
        How the turn ended.
    """

    goal: Goal
    value: float
    bound: float
    solution: Solution

    @property
    def unit(self) -> str:
        """Unit of the value and the bound."""
        quantity = (
            self.goal.quantity if isinstance(self.goal.quantity, Quantity) else QUANTITIES.get(self.goal.quantity)
        )
        return self.goal.objective.value_unit(quantity.unit)


def priorities(
    model: ForwardModel,
    goals: Sequence[Goal],
    patient: Patient,
    fractions: int | None = None,
    constraints: Sequence[Constraint] = (),
    *,
    slack: float = 1.03,
    sufficient: Sequence[float] | None = None,
    solver: AugmentedLagrangian | None = None,
    **options: Any,
) -> tuple[Plan, tuple[PriorityStep, ...]]:
    """Return the plan that serves goals in the order of their priority, and what each one reached.

    The first goal is optimised alone within the constraints; then it becomes a constraint at `slack` times what it
    reached, and the next is optimised; and so on. Each turn starts from the plan of the last one.

    Parameters
    ----------
    model, patient, fractions, constraints
        As `radplan.optimize` takes them.
    goals : sequence of Goal
        Highest priority first; their weights do not matter. Values of their objectives are >= 0.
    slack : float
        Factor >= 1 on what a goal reached.
    sufficient : sequence of float, optional
        A value per goal below which it need not be held: the larger of this and `slack` times the value is its bound.
    solver : AugmentedLagrangian, optional
        Serves each goal.
    **options
        Passed on to `radplan.optimize`.

    Raises
    ------
    InputError
        When there are no goals, the slack is below 1, or there is not one sufficient value for each goal.

    Source: Breedveld et al., Phys. Med. Biol. 52 (2007) 6339 and 54 (2009) 7199 (2-phase epsilon-constraint method).
    """
    if not goals:
        raise InputError("a wish list needs at least one goal")
    if not slack >= 1.0:
        raise InputError(f"slack must be >= 1, got {slack!r}")
    enough = [0.0] * len(goals) if sufficient is None else [float(value) for value in sufficient]
    if len(enough) != len(goals):
        raise InputError(f"expected a sufficient value for each of {len(goals)} goals, got {len(enough)}")
    chosen = solver or AugmentedLagrangian()
    kept: list[Constraint] = list(constraints)
    steps: list[PriorityStep] = []
    plan: Any = None
    for goal, least in zip(goals, enough, strict=True):
        # Why: goals without weight take no part, but their structures contend for voxels in every turn alike.
        alone = [replace(other, weight=1.0 if other is goal else 0.0) for other in goals]
        plan = optimize(model, alone, patient, fractions, chosen, kept, start=plan, **options)
        solution = plan.solution
        if solution is None or solution.status in (Status.STOPPED, Status.INTERRUPTED):
            break
        value = solution.value
        bound = max(slack * value, least)
        steps.append(PriorityStep(goal, value, bound, solution))
        kept.append(Constraint(goal.structure, goal.objective, upper=bound, quantity=goal.quantity))
    return plan, tuple(steps)
