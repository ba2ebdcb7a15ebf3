"""What a plan file says of robustness: the scenarios, and how goals see them."""

from __future__ import annotations

from radplan.errors import UnknownNameError
from radplan.influence import Scenarios
from radplan.io.plan_file.reading import PlanSpec
from radplan.io.plan_file.sections import GoalSpec, RobustSpec
from radplan.optim.robust import REDUCTIONS


def wanted_scenarios(spec: PlanSpec) -> Scenarios | None:
    """Return the scenarios that a specification asks for, None for the nominal case alone.

    Raises
    ------
    InputError
        When a number is out of its range.

    >>> from radplan.io.plan_file.reading import plan_spec
    >>> len(wanted_scenarios(plan_spec({"robust": {"setup": 5, "range": 0.035}})))
    9
    """
    wanted = spec.robust
    if not isinstance(wanted, RobustSpec):
        return None
    return Scenarios.setup_and_range(
        wanted.setup,
        wanted.range,
        wanted.kind,
        points=wanted.points,
        deviations=wanted.deviations,
        count=wanted.count,
        seed=wanted.seed,
    )


def composite(spec: PlanSpec) -> str | None:
    """Return ``"composite"`` where the sum of all goals is minimised in its worst scenario, else None."""
    if isinstance(spec.robust, RobustSpec):
        return "composite" if spec.robust.reduction == "composite" else None
    return spec.robust


def reduction_of(goal: GoalSpec, spec: PlanSpec) -> str:
    """Return how a goal of a specification reduces scenarios: as it says itself, else as all goals do.

    Raises
    ------
    UnknownNameError
        When no reduction has the name given for all goals.
    """
    if not isinstance(spec.robust, RobustSpec) or spec.robust.reduction == "composite":
        return goal.robust
    if spec.robust.reduction not in REDUCTIONS:
        raise UnknownNameError("robust reduction", spec.robust.reduction, ("composite", *REDUCTIONS))
    return goal.robust if "robust" in goal.model_fields_set else spec.robust.reduction
